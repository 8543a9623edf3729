"""The tape: whole episodes laid end to end. All that follows from the boundaries of episodes is derived here alone."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memoroids.algebra.resettable import select


class Tape(eqx.Module):
    """Episodes end to end on one slot axis N; an episode of T actions takes T + 1 neighbouring slots.

    | field | shape | dtype | |
    |---|---|---|---|
    | `observation` | (N, …) | any | o_t |
    | `begin` | (N,) | bool | o_t opens an episode |
    | `action` | (N, …) | any | what was done at o_t |
    | `reward` | (N,) | float32 | what a_t earned |
    | `terminated` | (N,) | bool | a_t ended the episode for good: nothing follows, nothing is bootstrapped |
    | `truncated` | (N,) | bool | a_t ended the episode from outside (a time limit): its value goes on |
    | `transition` | (N,) | bool | False in an episode's last slot, which holds only its final observation |

    Padding slots have `begin` set, `transition` unset and zeros elsewhere. Where both end flags are set, terminated
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
        """(N,) bool: slots that hold only an episode's final observation."""
        return ~self.begin & ~self.transition

    def next_slot(self, values: Any) -> Any:
        """What stands in the following slot, for each slot of arrays (N, …); zeros after the last.

        The next Markov state of a transition is the state in the following slot, never a memory run from
        `next_observation` alone.
        """

        def shift(v: jax.Array) -> jax.Array:
            return jnp.concatenate((v[1:], jnp.zeros_like(v[:1])))

        return jax.tree.map(shift, values)

    def steps(self) -> jax.Array:
        """(N,) int32: each slot's age in its episode, 0 where it begins."""
        index = jnp.arange(self.slots)
        return index - lax.cummax(jnp.where(self.begin, index, 0))

    def episodes(self) -> jax.Array:
        """(N,) int32: the number of the episode of each slot, from 0; slots before the first begin flag have -1."""
        return jnp.cumsum(self.begin.astype(jnp.int32)) - 1


def continues(terminated: jax.Array, truncated: jax.Array, transition: jax.Array | None = None) -> jax.Array:
    """(T,) bool: whether the transition in the next row goes on from this row's.

    False at both ends of episodes, at rows that are no transition, before such rows, and in the last row.
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
    how it ended, at least one of the two.

    Raises `ValueError`, naming the step, where lengths do not fit or an observation or reward is not finite: a NaN that
    entered here would reach every parameter.
    """
    observation, action = np.asarray(observation), np.asarray(action)
    reward = np.asarray(reward, np.float32)
    length = reward.shape[0] if reward.ndim == 1 else -1
    if length < 1 or observation.shape[:1] != (length + 1,) or action.shape[:1] != (length,):
        raise ValueError(
            f"an episode of T >= 1 actions has T + 1 observations, T actions and T rewards; got shapes "
            f"{observation.shape}, {action.shape} and {reward.shape}"
        )
    if not (terminated or truncated):
        raise ValueError("a whole episode ends terminated or truncated, got neither")
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
    """One NumPy-backed tape of several, end to end. Raises `ValueError` for none."""
    if not tapes:
        raise ValueError("concatenate: needs at least one tape, got none")
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *tapes)


def pad(tape: Tape, slots: int) -> Tape:
    """`tape` with padding slots behind it, NumPy-backed. Raises `ValueError` where it is longer than `slots`."""
    extra = slots - tape.slots
    if extra < 0:
        raise ValueError(f"pad: a tape of {tape.slots} slots does not fit into {slots}")
    padded = jax.tree.map(lambda leaf: np.pad(leaf, [(0, extra)] + [(0, 0)] * (leaf.ndim - 1)), tape)
    padded.begin[tape.slots :] = True
    return padded


def blank(tape: Tape, where: jax.Array) -> Tape:
    """`tape` with padding in the slots that `where` (T,) names, for episodes that are dropped whole."""
    padding = empty(1, tape)
    choose = jax.vmap(lambda wanted, slot: select(wanted, jax.tree.map(lambda leaf: leaf[0], padding), slot))
    return choose(where, tape)


def slots_needed(batch_size: int, max_length: int, min_length: int = 1) -> int:
    """Slots that always hold a batch: whole episodes, drawn until their transitions reach `batch_size`.

    The last may overshoot by `max_length` - 1, and each of at most ⌈batch_size / min_length⌉ has a final slot.
    """
    return batch_size + max_length - 1 + -(-batch_size // min_length)
