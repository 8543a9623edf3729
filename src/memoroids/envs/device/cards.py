"""POPGym's card tasks. Cards are drawn when they are dealt, which is equivalent to shuffling the deck first."""

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
"""The number of kinds of cards for each deck type; all kinds have the same number of cards."""
SUITS = KINDS["suits"]
MOST = 2**16 // DECK
"""The most decks for which `below` can draw a card."""


def draw(bits: jax.Array, left: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draws a card by 32 random bits; returns its kind, int32, and the cards left afterwards.

    `left`, (kinds,) uint16: the cumulative number of cards left, of each kind and all kinds before it.
    """
    passed = below(bits, left[-1]).astype(jnp.uint16) >= left
    return jnp.sum(passed, dtype=jnp.int32), left - ~passed


def _reward(right: jax.Array, scale: float) -> jax.Array:
    """`scale` for a right answer, and its negative for a wrong one."""
    return jnp.where(right, jnp.float32(scale), jnp.float32(-scale))


class _Cards(DeviceEnv):
    num_decks: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        if not 0 < self.num_decks <= MOST:
            raise ValueError(f"num_decks must be from 1 to {MOST}, got {self.num_decks}")

    @property
    def cards(self) -> int:
        """The number of cards in all decks."""
        return DECK * self.num_decks

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """One transition for each card but the first, which is dealt by the reset."""
        return self.cards - 1

    @property
    def min_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """All episodes have the same length."""
        return self.max_length

    @property
    def observation_space(self) -> gym.Space:
        """The suit of the card dealt."""
        return spaces.Discrete(SUITS)

    @property
    def action_space(self) -> gym.Space:
        """The suit to name."""
        return spaces.Discrete(SUITS)

    def _full(self, kinds: int = SUITS) -> jax.Array:
        return jnp.arange(1, kinds + 1, dtype=jnp.uint16) * (self.cards // kinds)

    def _over(self, time: jax.Array) -> dict[str, jax.Array]:
        return {"terminated": time == self.max_length, "truncated": jnp.zeros((), bool)}


class Dealt(NamedTuple):
    """The cards left (see `draw`), (4,) uint16, the remembered suits, and the number of transitions so far, int32.

    `kept`: the suits, (words,) uint32, with suit i in two bits of word i // 16.
    """

    left: jax.Array
    kept: jax.Array
    time: jax.Array


def _kept(words: jax.Array, i: jax.Array) -> jax.Array:
    return (words[i // 16] >> _shift(i)).astype(jnp.int32) & 3


def _keep(words: jax.Array, i: jax.Array, suit: jax.Array) -> jax.Array:
    # Not a scatter: mapped over environments, it would be executed for one at a time.
    here = jnp.arange(words.size, dtype=jnp.int32) == i // 16
    return jnp.where(here, words & ~(jnp.uint32(3) << _shift(i)) | suit.astype(jnp.uint32) << _shift(i), words)


def _shift(i: jax.Array) -> jax.Array:
    return (2 * (i % 16)).astype(jnp.uint32)


class _Suits(_Cards):
    """Remembers `memory` suits; the one dealt at time t is at position t modulo `memory`."""

    @property
    def memory(self) -> int:
        """The number of suits remembered."""
        return self.cards

    def reset(self, key: jax.Array) -> tuple[Dealt, Any]:
        """Deals the first card."""
        suit, left = draw(jax.random.bits(key), self._full())
        time = jnp.zeros((), jnp.int32)
        kept = _keep(jnp.zeros(-(-self.memory // 16), jnp.uint32), time, suit)
        return Dealt(left, kept, time), suit

    def _deal(self, state: Dealt, key: jax.Array) -> tuple[Dealt, jax.Array]:
        time = state.time + 1
        suit, left = draw(jax.random.bits(key), state.left)
        return Dealt(left, _keep(state.kept, time % self.memory, suit), time), suit


class RepeatFirst(_Suits):
    """Every action should name the suit of the first card."""

    def answer(self, state: Dealt) -> tuple[jax.Array, jax.Array]:
        """The right action, int32, and whether there is one, bool."""
        return _kept(state.kept, jnp.zeros((), jnp.int32)), jnp.ones((), bool)

    def step(self, state: Dealt, action: jax.Array, key: jax.Array) -> tuple[Dealt, Step]:
        """Rewards the first card's suit and deals the next card."""
        reward = _reward(action == self.answer(state)[0], 1 / (self.cards - 1))
        time = state.time + 1
        suit, left = draw(jax.random.bits(key), state.left)
        return Dealt(left, state.kept, time), Step(suit, reward, **self._over(time))

    @property
    def memory(self) -> int:
        """Only the first suit is remembered."""
        return 1


class RepeatPrevious(_Suits):
    """Every action should name the suit dealt k - 1 cards ago; the reward is 0 until k cards have been dealt."""

    k: int = eqx.field(static=True, default=4)

    def __check_init__(self) -> None:
        if not 0 < self.k < self.cards:
            raise ValueError(f"k must be from 1 to {self.cards - 1} with num_decks {self.num_decks}, got {self.k}")

    @property
    def memory(self) -> int:
        """The last k suits are remembered."""
        return self.k

    def answer(self, state: Dealt) -> tuple[jax.Array, jax.Array]:
        """The right action, int32, and whether there is one, bool."""
        # The oldest suit is at the position that the next one will take.
        return _kept(state.kept, (state.time + 1) % self.k), state.time + 1 >= self.k

    def step(self, state: Dealt, action: jax.Array, key: jax.Array) -> tuple[Dealt, Step]:
        """Rewards the suit dealt k - 1 cards ago and deals the next card."""
        answer, asking = self.answer(state)
        reward = jnp.where(asking, _reward(action == answer, 1 / (self.cards - self.k)), 0)
        state, suit = self._deal(state, key)
        return state, Step(suit, reward, **self._over(state.time))


class Autoencode(_Suits):
    """Deals all cards; afterwards the actions should name their suits in reverse order."""

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """One transition for each card but the first to deal it, and one for each card to name it."""
        return 2 * self.cards - 1

    @property
    def observation_space(self) -> gym.Space:
        """Whether cards are still being dealt, and the suit dealt, 0 afterwards."""
        return spaces.Tuple((spaces.Discrete(2), spaces.Discrete(SUITS)))

    def reset(self, key: jax.Array) -> tuple[Dealt, tuple[jax.Array, jax.Array]]:
        """Deals the first card."""
        state, suit = super().reset(key)
        return state, (jnp.ones((), jnp.int32), suit)

    def answer(self, state: Dealt) -> tuple[jax.Array, jax.Array]:
        """The right action, int32, and whether there is one, bool."""
        time = state.time + 1
        return _kept(state.kept, jnp.clip(self.max_length - time, 0, self.cards - 1)), time >= self.cards

    def step(self, state: Dealt, action: jax.Array, key: jax.Array) -> tuple[Dealt, Step]:
        """Deals the next card or, after the last one, rewards the suit asked for."""
        answer, asking = self.answer(state)
        dealt, suit = self._deal(state, key)
        reward = jnp.where(asking, _reward(action == answer, 1 / self.cards), 0)
        state = Dealt(dealt.left, jnp.where(asking, state.kept, dealt.kept), dealt.time)
        # With the last card the first flag is already 0: it is the first to be named.
        observation = (dealt.time < self.cards - 1).astype(jnp.int32), jnp.where(asking, 0, suit)
        return state, Step(observation, reward, **self._over(dealt.time))


class Counted(NamedTuple):
    """Cards left to deal and to ask for (see `draw`), (kinds,) uint16, the kind asked for, and transitions so far."""

    values: jax.Array
    queries: jax.Array
    query: jax.Array
    time: jax.Array


class CountRecall(_Cards):
    """Deals a card and asks for a kind: how often has it been dealt so far, the present card included?

    `error_clamp` is accepted, as in POPGym, and has no effect, as in POPGym.
    """

    deck_type: str = eqx.field(static=True, default="colors")
    error_clamp: float = eqx.field(static=True, default=0.5)

    def __check_init__(self) -> None:
        if self.deck_type not in KINDS:
            raise ValueError(f"deck_type must be one of {', '.join(KINDS)}, got {self.deck_type!r}")

    @property
    def kinds(self) -> int:
        """The number of kinds of cards."""
        return KINDS[self.deck_type]

    @property
    def observation_space(self) -> gym.Space:
        """The kind dealt and the kind asked for."""
        return spaces.MultiDiscrete([self.kinds] * 2)

    @property
    def action_space(self) -> gym.Space:
        """The count, from 0 to all cards of a kind."""
        return spaces.Discrete(self.cards // self.kinds + 1)

    def reset(self, key: jax.Array) -> tuple[Counted, jax.Array]:
        """Deals the first card and asks for the first kind."""
        full = self._full(self.kinds)
        return self._deal(Counted(full, full, jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32)), key)

    def answer(self, state: Counted) -> tuple[jax.Array, jax.Array]:
        """The right action, int32, and whether there is one, bool."""
        before = jnp.where(state.query > 0, state.values[state.query - 1], 0)
        count = self.cards // self.kinds - (state.values[state.query] - before).astype(jnp.int32)
        return count, jnp.ones((), bool)

    def step(self, state: Counted, action: jax.Array, key: jax.Array) -> tuple[Counted, Step]:
        """Rewards the right count, deals the next card and asks for the next kind."""
        reward = _reward(action == self.answer(state)[0], 1 / self.max_length)
        state, observation = self._deal(state, key)
        return state, Step(observation, reward, **self._over(state.time))

    def _deal(self, state: Counted, key: jax.Array) -> tuple[Counted, jax.Array]:
        bits = jax.random.bits(key, (2,))
        value, values = draw(bits[0], state.values)
        query, queries = draw(bits[1], state.queries)
        return Counted(values, queries, query, state.time + 1), jnp.stack((value, query))


class Guessed(NamedTuple):
    """The cards left (see `draw`), (13,) uint16, the last rank, and the number of transitions so far, int32 each."""

    left: jax.Array
    rank: jax.Array
    time: jax.Array


class HigherLower(_Cards):
    """Every action should say whether the next card is higher or lower than the last one."""

    @property
    def observation_space(self) -> gym.Space:
        """The rank of the card dealt."""
        return spaces.Discrete(KINDS["ranks"])

    @property
    def action_space(self) -> gym.Space:
        """0 for higher, 1 for lower."""
        return spaces.Discrete(2)

    def reset(self, key: jax.Array) -> tuple[Guessed, jax.Array]:
        """Deals the first card."""
        rank, left = draw(jax.random.bits(key), self._full(KINDS["ranks"]))
        return Guessed(left, rank, jnp.zeros((), jnp.int32)), rank

    def step(self, state: Guessed, action: jax.Array, key: jax.Array) -> tuple[Guessed, Step]:
        """Deals the next card and rewards the right guess; the reward is 0 if both cards have the same rank."""
        rank, left = draw(jax.random.bits(key), state.left)
        reward = _reward((rank > state.rank) == (action == 0), 1 / self.cards)
        time = state.time + 1
        step = Step(rank, jnp.where(rank == state.rank, 0, reward), **self._over(time))
        return Guessed(left, rank, time), step
