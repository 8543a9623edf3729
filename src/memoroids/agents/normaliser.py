"""Observations as networks read them: symbols one-hot, and all at unit scale.

The scale is known from bounds where these are narrow, elsewhere from running statistics.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from memoroids.algebra.resettable import select
from memoroids.envs.observations import Ranges, Symbols
from memoroids.tape import Tape

FARTHEST = 10.0
"""Deviations from the mean beyond which an observation is clipped."""
FINEST = 1e-6
"""The smallest deviation that counts, as a share of the mean: below it there is only the rounding of float32."""

Learner = TypeVar("Learner", bound=Any)


def one_hot_symbols(row: jax.Array, symbols: tuple[Symbols, ...]) -> jax.Array:
    """A row whose symbols are one-hot in their places: (m,) → (m + Σ (stop - start)(kinds - 1),).

    The derivative with respect to a symbol's number is half the difference of its neighbours, so that what an output
    owes to the observation can be measured (`memoroids.sensitivity`). Where these are normalised, so is the derivative:
    a rare neighbour weighs more.
    """
    parts, end = [], 0
    for start, stop, kinds in symbols:
        after = jnp.mod(row[start:stop, None], kinds) - jnp.arange(kinds, dtype=row.dtype)[None]
        parts += [row[end:start], jnp.maximum(jnp.minimum(1 + after, 1 - after), 0).ravel()]
        end = stop
    return jnp.concatenate((*parts, row[end:]))


class Normaliser(eqx.Module):
    """(o - centre) / scale for each element of an observation, its symbols one-hot: (m,) → (n,) float32.

    Of elements whose statistics are running, `centre` is the mean and `scale` the standard deviation of what was seen
    so far, 1 where it does not vary, and the result is clipped to ±10. So a symbol counts the more the rarer it is, and
    one that is always there counts nothing. `weight`: how many observations these stand for, a float32 scalar. No
    gradient flows into any of the three, so they can be part of a network's parameters, and `observed` replaces them.
    """

    centre: jax.Array
    scale: jax.Array
    weight: jax.Array
    running: tuple[bool, ...] = eqx.field(static=True)
    symbols: tuple[Symbols, ...] = eqx.field(static=True, default=())

    @classmethod
    def of(cls, ranges: Ranges, symbols: tuple[Symbols, ...] = ()) -> "Normaliser":
        """A normaliser that has seen nothing yet; `ranges` (n,) of observations with their symbols one-hot."""
        centre, half = (jnp.asarray(part, jnp.float32) for part in (ranges.centre, ranges.half))
        return cls(centre, half, jnp.zeros((), jnp.float32), tuple(ranges.running.tolist()), symbols)

    def __call__(self, observation: jax.Array) -> jax.Array:
        """The normalised observation, (m,) → (n,)."""
        centre, scale = lax.stop_gradient((self.centre, self.scale))
        found = (self._hot(observation) - centre) / scale
        if not any(self.running):
            return found
        return jnp.where(jnp.asarray(self.running), jnp.clip(found, -FARTHEST, FARTHEST), found)

    def _hot(self, observation: jax.Array) -> jax.Array:
        return one_hot_symbols(observation, self.symbols) if self.symbols else observation

    def after(self, tape: Tape) -> "Normaliser":
        """The statistics after the observations of one or several tapes, leaves (…, slots). No others than finite."""
        if not any(self.running):
            return self
        seen = ~tape.padding.ravel()
        rows = jax.vmap(self._hot)(tape.observation.reshape(seen.size, -1))
        count = jnp.sum(seen, dtype=jnp.float32)
        weight = self.weight + count

        def mean_of(function: Callable[[jax.Array], jax.Array]) -> jax.Array:
            """The mean of a function over the rows that count."""
            total = jnp.sum(jax.vmap(lambda row, its: jnp.where(its, function(row), 0))(rows, seen), axis=0)
            return total / jnp.maximum(count, jnp.float32(1))

        share = count / jnp.maximum(weight, jnp.float32(1))
        mean = self.centre + share * mean_of(lambda row: row - self.centre)
        known = jnp.where(self.weight > 0, jnp.square(self.scale) + jnp.square(self.centre - mean), 0)
        scale = jnp.sqrt((1 - share) * known + share * mean_of(lambda row: jnp.square(row - mean)))
        scale = jnp.where(scale > FINEST * jnp.abs(mean), scale, jnp.float32(1))
        running = jnp.asarray(self.running)
        centre, scale = jnp.where(running, mean, self.centre), jnp.where(running, scale, self.scale)
        after = Normaliser(centre, scale, weight, self.running, self.symbols)
        return select(jnp.all(jnp.isfinite(centre) & jnp.isfinite(scale)), after, self)


def observed(state: Learner, tape: Tape) -> Learner:
    """The learner's state with normalisers, in its parameters and its target network's, that have seen the tape."""
    normaliser = state.params.normaliser
    if normaliser is None:
        return state
    after = normaliser.after(tape)
    networks = {name: getattr(state, name) for name in ("params", "target") if hasattr(state, name)}
    return state._replace(
        **{name: eqx.tree_at(lambda net: net.normaliser, net, after) for name, net in networks.items()}
    )
