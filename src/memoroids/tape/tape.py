"""The tape: whole episodes end to end. What flags mean and what follows from them is defined here and nowhere else."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memoroids.algebra.resettable import select


class Tape(eqx.Module):
    """Episodes end to end on one slot axis N; an episode of T actions takes T + 1 consecutive slots.

    | field | shape | dtype | |
    |---|---|---|---|
    | `observation` | (N, …) | any | o_t |
    | `begin` | (N,) | bool | o_t is the first observation of an episode |
    | `action` | (N, …) | any | a_t, the action taken at o_t |
    | `reward` | (N,) | float32 | r_t, the reward for a_t |
    | `terminated` | (N,) | bool | the episode terminated after a_t: no bootstrapping |
    | `truncated` | (N,) | bool | the episode was cut off after a_t (time limit): bootstrap from o_{t+1} |
    | `transition` | (N,) | bool | False in an episode's last slot, which holds only its final observation |

    Padding slots have `begin` True, `transition` False and zeros elsewhere. If an episode ends both ways, terminated
    wins.

    Source: Morad et al. 2024, Section 5.
    """

    observation: jax.Array
    begin: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    transition: jax.Array

    @property
    def slots(self) -> int:
        """N, the length of the slot axis."""
        return self.begin.shape[0]

    @property
    def padding(self) -> jax.Array:
        """(N,) bool: slots that belong to no episode."""
        return self.begin & ~self.transition

    @property
    def final(self) -> jax.Array:
        """(N,) bool: slots that hold only the final observation of an episode."""
        return ~self.begin & ~self.transition

    def next_slot(self, values: Any) -> Any:
        """The values of the next slot, for each slot of arrays (N, …); zeros for the last one.

        The next Markov state of a transition is the state in the next slot. It is not recomputed by running the
        memory from `next_observation` alone, which forgets o_0 (DQN's `next_state="recomputed"` does, to compare).
        """

        def shift(v: jax.Array) -> jax.Array:
            return jnp.concatenate((v[1:], jnp.zeros_like(v[:1])))

        return jax.tree.map(shift, values)

    def steps(self) -> jax.Array:
        """(N,) int32: the step t of each slot within its episode, counted from 0."""
        index = jnp.arange(self.slots, dtype=jnp.int32)
        return index - lax.cummax(jnp.where(self.begin, index, 0))

    def episodes(self) -> jax.Array:
        """(N,) int32: the index of each slot's episode on this tape, from 0; -1 before the first begin flag."""
        return jnp.cumsum(self.begin.astype(jnp.int32)) - 1


def continues(terminated: jax.Array, truncated: jax.Array, transition: jax.Array | None = None) -> jax.Array:
    """(T,) bool: whether the next row holds the next transition of the same episode.

    False where an episode terminated or was truncated, in rows without a transition, in the row before such a row, and
    in the last row.
    """
    going = ~(terminated | truncated)
    if transition is not None:
        going = going & transition & jnp.concatenate((transition[1:], jnp.zeros_like(transition[:1])))
    return going & (jnp.arange(going.shape[0]) < going.shape[0] - 1)


def empty(slots: int, example: Tape) -> Tape:
    """A tape of `slots` padding slots, with the trailing shapes and dtypes of `example`."""
    blank = jax.tree.map(lambda leaf: jnp.zeros((slots, *leaf.shape[1:]), leaf.dtype), example)
    return eqx.tree_at(lambda tape: tape.begin, blank, jnp.ones(slots, bool))


def episode(observation: Any, action: Any, reward: Any, terminated: bool, truncated: bool) -> Tape:
    """One whole episode as a NumPy-backed tape of T + 1 slots.

    **Arguments:** `observation` (T + 1, …), from the first to the final one; `action` (T, …) and `reward` (T,), T ≥ 1;
    `terminated` and `truncated`, at least one of which is True.

    Raises `ValueError` if the lengths do not match, if neither flag is set, or if an observation or reward is not
    finite, naming the step: a NaN that gets past this point would reach every parameter.
    """
    observation, action = np.asarray(observation), np.asarray(action)
    reward = np.asarray(reward, np.float32)
    length = reward.shape[0] if reward.ndim == 1 else -1
    if length < 1 or observation.shape[:1] != (length + 1,) or action.shape[:1] != (length,):
        raise ValueError(
            f"episode: needs T + 1 observations, T actions and T rewards with T >= 1, got shapes "
            f"{observation.shape}, {action.shape} and {reward.shape}"
        )
    if not (terminated or truncated):
        raise ValueError("episode: a whole episode is terminated or truncated, got neither")
    for name, values in (("observation", observation), ("reward", reward)):
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            bad = int(np.argmin(np.isfinite(values).reshape(len(values), -1).all(1)))
            raise ValueError(f"the {name} at step {bad} is not finite: {values[bad]}")
    index = np.arange(length + 1)
    last = index == length - 1
    tail = np.zeros((1, *action.shape[1:]), action.dtype)
    return Tape(
        observation=observation,  # pyright: ignore[reportArgumentType]
        begin=index == 0,  # pyright: ignore[reportArgumentType]
        action=np.concatenate((action, tail)),  # pyright: ignore[reportArgumentType]
        reward=np.append(reward, np.float32(0)),  # pyright: ignore[reportArgumentType]
        terminated=last & terminated,  # pyright: ignore[reportArgumentType]
        truncated=last & truncated & (not terminated),  # pyright: ignore[reportArgumentType]
        transition=index < length,  # pyright: ignore[reportArgumentType]
    )


def concatenate(tapes: Sequence[Tape]) -> Tape:
    """Joins tapes end to end into one NumPy-backed tape. Raises `ValueError` if there is none."""
    if not tapes:
        raise ValueError("concatenate: needs at least one tape, got none")
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *tapes)


def pad(tape: Tape, slots: int) -> Tape:
    """`tape` with padding appended up to `slots`, NumPy-backed. Raises `ValueError` if it is longer than `slots`."""
    extra = slots - tape.slots
    if extra < 0:
        raise ValueError(f"pad: a tape of {tape.slots} slots does not fit into {slots}")
    padded = jax.tree.map(lambda leaf: np.pad(leaf, [(0, extra)] + [(0, 0)] * (leaf.ndim - 1)), tape)
    padded.begin[tape.slots :] = True
    return padded


def blank(tape: Tape, where: jax.Array) -> Tape:
    """`tape` with padding in the slots where the mask `where` (N,) is True, to drop whole episodes."""
    padding = empty(1, tape)
    choose = jax.vmap(lambda wanted, slot: select(wanted, jax.tree.map(lambda leaf: leaf[0], padding), slot))
    return choose(where, tape)


def slots_needed(batch_size: int, max_length: int, min_length: int = 1) -> int:
    """The number of slots that is enough for any batch of whole episodes with at least `batch_size` transitions.

    The last episode may exceed `batch_size` by `max_length` - 1, and each of at most ⌈batch_size / min_length⌉ episodes
    has a final slot.
    """
    return batch_size + max_length - 1 + -(-batch_size // min_length)
