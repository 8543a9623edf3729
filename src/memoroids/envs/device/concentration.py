"""POPGym's concentration: cards lie face down, and two of a kind that are turned in succession stay face up."""

import math
from typing import ClassVar, NamedTuple

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from memoroids.envs.device.cards import DECK, KINDS
from memoroids.envs.device.environment import DeviceEnv, Step

NONE = -1
"""The card in play if there is none."""


class Table(NamedTuple):
    """The kind of each card, (cards,) int8, and whether it stays face up, (cards,) bool.

    `turned`: the first card of a pair, `NONE` between two pairs. `time`: the number of transitions so far, int32 both.
    """

    kinds: jax.Array
    up: jax.Array
    turned: jax.Array
    time: jax.Array


class Concentration(DeviceEnv):
    """The observation is the kind of each card that is face up, and one kind more for those that are not."""

    requires_previous_action: ClassVar[bool] = True
    num_decks: int = eqx.field(static=True, default=1)
    deck_type: str = eqx.field(static=True, default="ranks")

    def __check_init__(self) -> None:
        if self.num_decks < 1:
            raise ValueError(f"num_decks must be at least 1, got {self.num_decks}")
        if self.deck_type not in ("colors", "ranks"):
            raise ValueError(f"deck_type must be colors or ranks, got {self.deck_type!r}")

    @property
    def cards(self) -> int:
        """The number of cards in all decks."""
        return DECK * self.num_decks

    @property
    def kinds(self) -> int:
        """The number of kinds of cards."""
        return KINDS[self.deck_type]

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """POPGym's limit, about two turns for each card."""
        return math.ceil(2 * self.cards - self.cards / (2 * self.cards - 1))

    @property
    def min_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """One turn for each card."""
        return self.cards

    @property
    def observation_space(self) -> gym.Space:
        """The kind of each card, the number of kinds if it is face down."""
        # POPGym gives the numbers of values as floats, which Gymnasium makes int64.
        return spaces.MultiDiscrete(np.full(self.cards, self.kinds + 1))

    @property
    def action_space(self) -> gym.Space:
        """The card to turn."""
        return spaces.Discrete(self.cards)

    def reset(self, key: jax.Array) -> tuple[Table, jax.Array]:
        """Shuffles the cards and lays them face down."""
        kinds = (jnp.arange(self.cards, dtype=jnp.int32) % self.kinds).astype(jnp.int8)
        none = jnp.full((), NONE, jnp.int32)
        up = jnp.zeros(self.cards, bool)
        table = Table(jax.random.permutation(key, kinds), up, none, jnp.zeros((), jnp.int32))
        return table, self._seen(table.kinds, up)

    def step(self, state: Table, action: jax.Array, key: jax.Array) -> tuple[Table, Step]:
        """Turns a card; the episode terminates when all cards stay face up."""
        kinds, up, turned, time = state
        cards = jnp.arange(self.cards, dtype=jnp.int32)
        now, first = cards == action, cards == turned
        second = turned != NONE
        known = up[action]
        pair = second & ~known & (turned != action) & (kinds[turned] == kinds[action])
        failure = jnp.where(second, 2.0, jnp.where(known, 1.0, 0.0)) / self.max_length
        after = up | (pair & (now | first))
        step = Step(
            self._seen(kinds, up | now | first),
            jnp.where(pair, 2 / self.cards, -failure).astype(jnp.float32),
            jnp.all(after),
            time >= self.max_length - 1,
        )
        return Table(kinds, after, jnp.where(second | known, NONE, action), time + 1), step

    def _seen(self, kinds: jax.Array, up: jax.Array) -> jax.Array:
        return jnp.where(up, kinds.astype(jnp.int32), self.kinds)
