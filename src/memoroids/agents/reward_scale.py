"""Rewards divided by the typical size of returns, so that learning does not depend on the unit of rewards."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from memoroids.algebra.resettable import select
from memoroids.returns import discounted_return
from memoroids.tape import Tape

WINDOW = 100_000
"""Transitions over which the statistics are averaged: older ones fade, since returns grow as policies improve."""
IN_UNITS = ("td_error", "q_mean")
"""Metrics of an update that are in units of reward."""

Learner = TypeVar("Learner", bound=Any)
Batch = TypeVar("Batch", bound=Any)


class RewardScale(NamedTuple):
    """Running statistics of returns G_t = r_t + γ G_{t+1}, summed to the end of the episode or of the batch.

    `rms`: the root mean square of those that are not 0, a float32 scalar in units of reward; 0 before the first.
    `weight`: how many transitions it stands for, a float32 scalar, at most `WINDOW`.

    A root mean square, because the deviation vanishes where every step has the same reward; without zeros, because one
    success among a thousand episodes would otherwise count as thirty times its reward. Rewards times a power of two
    give the same scaled rewards, bit for bit.
    """

    rms: jax.Array
    weight: jax.Array

    @classmethod
    def unknown(cls) -> "RewardScale":
        """The statistics before the first reward."""
        return cls(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))

    @property
    def unit(self) -> jax.Array:
        """What rewards are divided by, a float32 scalar: `rms`, or 1 if it is not known."""
        return jnp.where(self.rms > 0, self.rms, jnp.float32(1))

    def after(self, tape: Tape, discount: float) -> "RewardScale":
        """The statistics after one or several tapes, leaves (…, slots). A batch that is not finite changes nothing."""
        returns = _returns(tape, discount)
        largest = jnp.maximum(jnp.max(jnp.abs(returns)), self.rms)
        # Squares of shares of the largest cannot overflow.
        unit = jnp.where(largest > 0, largest, jnp.float32(1))
        squares = jnp.sum(jnp.square(returns / unit)) + self.weight * jnp.square(self.rms / unit)
        weight = self.weight + jnp.sum(returns != 0, dtype=jnp.float32)
        rms = unit * jnp.sqrt(squares / jnp.maximum(weight, jnp.float32(1)))
        return select(jnp.isfinite(rms), RewardScale(rms, jnp.minimum(weight, jnp.float32(WINDOW))), self)

    def apply(self, tape: Tape) -> Tape:
        """The tape with rewards in units of a typical return."""
        return dataclasses.replace(tape, reward=tape.reward / self.unit)


def _returns(tape: Tape, discount: float) -> jax.Array:
    """G_t of every slot of tapes (…, slots), 0 in slots without a transition."""
    if tape.reward.ndim > 1:
        return jax.vmap(partial(_returns, discount=discount))(tape)
    nothing = jnp.zeros_like(tape.reward)
    return discounted_return(
        tape.reward, tape.terminated, tape.truncated, discount, nothing, transition=tape.transition
    )


def scaled(state: Learner, batch: Batch, discount: float) -> tuple[Learner, Batch]:
    """The learner's state with statistics that include the batch, and the batch with scaled rewards.

    `batch`: a rollout or a sample of a replay, a NamedTuple with a `tape`. Both are unchanged if `state.scale` is None.
    """
    if state.scale is None:
        return state, batch
    scale = state.scale.after(batch.tape, discount)
    return state._replace(scale=scale), batch._replace(tape=scale.apply(batch.tape))


def in_units_of_reward(state: Any, metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The metrics of an update on scaled rewards, with errors and values in the environment's own units."""
    if state.scale is None:
        return metrics
    return {name: leaf * state.scale.unit if name in IN_UNITS else leaf for name, leaf in metrics.items()}
