"""POPGym's card tasks. A card is drawn when it is dealt, which is as good as a shuffle before the first one."""

from typing import Any, NamedTuple

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
from gymnasium import spaces

from memoroids.envs.device.draws import below
from memoroids.envs.device.environment import DeviceEnv, Step

DECK = 52
KINDS = {"colors": 2, "suits": 4, "ranks": 13}
"""How many kinds of cards there are, equally many of each, by what tells them apart."""
SUITS = KINDS["suits"]
MOST = 2**16 // DECK
"""Decks that `below` can choose a card of."""


def draw(bits: jax.Array, left: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The kind of the card that 32 random bits choose, and what is left then.

    `left`, (kinds,) uint16: how many cards are left of each kind and those before it.
    """
    passed = below(bits, left[-1]).astype(jnp.uint16) >= left
    return jnp.sum(passed, dtype=jnp.int32), left - ~passed


def _paid(right: jax.Array, scale: float) -> jax.Array:
    return jnp.where(right, jnp.float32(scale), jnp.float32(-scale))


class _Cards(DeviceEnv):
    num_decks: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        if not 0 < self.num_decks <= MOST:
            raise ValueError(f"num_decks must be from 1 to {MOST}, got {self.num_decks}")

    @property
    def cards(self) -> int:
        return DECK * self.num_decks

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.cards - 1

    @property
    def min_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.max_length

    @property
    def observation_space(self) -> gym.Space:
        return spaces.Discrete(SUITS)

    @property
    def action_space(self) -> gym.Space:
        return spaces.Discrete(SUITS)

    def _full(self, kinds: int = SUITS) -> jax.Array:
        return jnp.arange(1, kinds + 1, dtype=jnp.uint16) * (self.cards // kinds)

    def _over(self, time: jax.Array) -> dict[str, jax.Array]:
        return {"terminated": time == self.max_length, "truncated": jnp.zeros((), bool)}


class Dealt(NamedTuple):
    """Cards left (see `draw`), (4,) uint16, the suits dealt that still matter, and transitions so far, int32.

    `kept`: (words,) uint32, suit i in two bits of word i // 16.
    """

    left: jax.Array
    kept: jax.Array
    time: jax.Array


def _kept(words: jax.Array, i: jax.Array) -> jax.Array:
    return (words[i // 16] >> _shift(i)).astype(jnp.int32) & 3


def _keep(words: jax.Array, i: jax.Array, suit: jax.Array) -> jax.Array:
    # Not a scatter, which would go through the copies one by one.
    here = jnp.arange(words.size, dtype=jnp.int32) == i // 16
    return jnp.where(here, words & ~(jnp.uint32(3) << _shift(i)) | suit.astype(jnp.uint32) << _shift(i), words)


def _shift(i: jax.Array) -> jax.Array:
    return (2 * (i % 16)).astype(jnp.uint32)


class _Suits(_Cards):
    """Keeps `memory` suits; the one dealt at time t in place t modulo `memory`."""

    @property
    def memory(self) -> int:
        return self.cards

    def reset(self, key: jax.Array) -> tuple[Dealt, Any]:
        suit, left = draw(jax.random.bits(key), self._full())
        time = jnp.zeros((), jnp.int32)
        kept = _keep(jnp.zeros(-(-self.memory // 16), jnp.uint32), time, suit)
        return Dealt(left, kept, time), suit

    def _deal(self, state: Dealt, key: jax.Array) -> tuple[Dealt, jax.Array]:
        time = state.time + 1
        suit, left = draw(jax.random.bits(key), state.left)
        return Dealt(left, _keep(state.kept, time % self.memory, suit), time), suit


class RepeatFirst(_Suits):
    """Every action should say the suit of the first card."""

    def step(self, state: Dealt, action: jax.Array, key: jax.Array) -> tuple[Dealt, Step]:
        reward = _paid(action == _kept(state.kept, jnp.zeros((), jnp.int32)), 1 / (self.cards - 1))
        time = state.time + 1
        suit, left = draw(jax.random.bits(key), state.left)
        return Dealt(left, state.kept, time), Step(suit, reward, **self._over(time))

    @property
    def memory(self) -> int:
        return 1


class RepeatPrevious(_Suits):
    """Every action should say the suit that was shown k - 1 cards ago; nothing is paid before there are k."""

    k: int = eqx.field(static=True, default=4)

    def __check_init__(self) -> None:
        if not 0 < self.k < self.cards:
            raise ValueError(f"k must be from 1 to {self.cards - 1} with num_decks {self.num_decks}, got {self.k}")

    @property
    def memory(self) -> int:
        return self.k

    def step(self, state: Dealt, action: jax.Array, key: jax.Array) -> tuple[Dealt, Step]:
        # The oldest suit that is kept is where the next one goes.
        paid = _paid(action == _kept(state.kept, (state.time + 1) % self.k), 1 / (self.cards - self.k))
        reward = jnp.where(state.time + 1 >= self.k, paid, 0)
        state, suit = self._deal(state, key)
        return state, Step(suit, reward, **self._over(state.time))


class Autoencode(_Suits):
    """Shows all cards, which the actions should then say in the reverse order. Observations: (still showing?, suit)."""

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 2 * self.cards - 1

    @property
    def observation_space(self) -> gym.Space:
        return spaces.Tuple((spaces.Discrete(2), spaces.Discrete(SUITS)))

    def reset(self, key: jax.Array) -> tuple[Dealt, tuple[jax.Array, jax.Array]]:
        state, suit = super().reset(key)
        return state, (jnp.ones((), jnp.int32), suit)

    def step(self, state: Dealt, action: jax.Array, key: jax.Array) -> tuple[Dealt, Step]:
        dealt, suit = self._deal(state, key)
        asking = dealt.time >= self.cards
        right = action == _kept(state.kept, jnp.clip(self.max_length - dealt.time, 0, self.cards - 1))
        reward = jnp.where(asking, _paid(right, 1 / self.cards), 0)
        state = Dealt(dealt.left, jnp.where(asking, state.kept, dealt.kept), dealt.time)
        # The last card is shown as the first to be asked for.
        shown = (dealt.time < self.cards - 1).astype(jnp.int32), jnp.where(asking, 0, suit)
        return state, Step(shown, reward, **self._over(dealt.time))


class Counted(NamedTuple):
    """Cards left to show and to ask for (see `draw`), (kinds,) uint16, the kind asked for last, transitions so far."""

    values: jax.Array
    queries: jax.Array
    query: jax.Array
    time: jax.Array


class CountRecall(_Cards):
    """Shows a card and asks for another: how often was that one shown so far, the present card included?

    `error_clamp` is taken, as by POPGym, and as there it changes nothing.
    """

    deck_type: str = eqx.field(static=True, default="colors")
    error_clamp: float = eqx.field(static=True, default=0.5)

    def __check_init__(self) -> None:
        if self.deck_type not in KINDS:
            raise ValueError(f"deck_type must be one of {', '.join(KINDS)}, got {self.deck_type!r}")

    @property
    def kinds(self) -> int:
        return KINDS[self.deck_type]

    @property
    def observation_space(self) -> gym.Space:
        return spaces.MultiDiscrete([self.kinds] * 2)

    @property
    def action_space(self) -> gym.Space:
        return spaces.Discrete(self.cards // self.kinds + 1)

    def reset(self, key: jax.Array) -> tuple[Counted, jax.Array]:
        full = self._full(self.kinds)
        return self._deal(Counted(full, full, jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32)), key)

    def step(self, state: Counted, action: jax.Array, key: jax.Array) -> tuple[Counted, Step]:
        before = jnp.where(state.query > 0, state.values[state.query - 1], 0)
        shown = self.cards // self.kinds - (state.values[state.query] - before).astype(jnp.int32)
        reward = _paid(action == shown, 1 / self.max_length)
        state, observation = self._deal(state, key)
        return state, Step(observation, reward, **self._over(state.time))

    def _deal(self, state: Counted, key: jax.Array) -> tuple[Counted, jax.Array]:
        bits = jax.random.bits(key, (2,))
        value, values = draw(bits[0], state.values)
        query, queries = draw(bits[1], state.queries)
        return Counted(values, queries, query, state.time + 1), jnp.stack((value, query))
