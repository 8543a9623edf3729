"""How far advantages usually spread, so that a rollout in which nothing happened weighs less than one with rewards."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from memoroids.agents.losses import centred
from memoroids.algebra.resettable import select


class AdvantageSpread(NamedTuple):
    """The running standard deviation of advantages, each rollout about its own mean.

    `deviation`: a float32 scalar, 0 before the first rollout. `weight`: how many transitions it stands for, float32.

    Where rewards are rare, most rollouts have none, and their advantages are the errors of the value alone. Divided by
    their own deviation, these would change the policy as much as a reward does, at random.
    """

    deviation: jax.Array
    weight: jax.Array

    @classmethod
    def unknown(cls) -> "AdvantageSpread":
        """The spread before the first rollout."""
        return cls(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))

    def after(self, advantage: jax.Array, weight: jax.Array, window: int) -> "AdvantageSpread":
        """The spread after a rollout: advantages and their weights, 0 or 1, of one shape.

        Of all transitions before, as many count as fill the `window`. A rollout that is not finite changes nothing.
        """
        squares = self.weight * jnp.square(self.deviation) + jnp.sum(jnp.square(centred(advantage, weight)[0]))
        count = self.weight + jnp.sum(weight)
        deviation = jnp.sqrt(squares / jnp.maximum(count, jnp.float32(1)))
        after = AdvantageSpread(deviation, jnp.minimum(count, jnp.float32(window)))
        return select(jnp.isfinite(deviation), after, self)
