"""The prediction of the next observation, from which a memory learns besides what the rewards teach."""

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.agents.encoders import ObservationShape
from memoroids.envs.observations import Mixed
from memoroids.envs.spaces import Actions, Continuous, Factored


class Predictor(eqx.Module):
    """The next observation from the features and the action taken: (width,) and an action → (n,), a linear map.

    Symbols of an observation are predicted one-hot. Raises `ValueError` if observations hold images.
    """

    linear: eqx.nn.Linear
    sizes: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, width: int, actions: Actions, observation_shape: ObservationShape, *, key: jax.Array):
        match observation_shape:
            case int(size) | (size,):
                pass
            case Mixed(images=()):
                size = observation_shape.inputs
            case _:
                raise ValueError("only observations without images can be predicted: set prediction_weight to 0")
        self.sizes = None
        if not isinstance(actions, Continuous):
            self.sizes = actions.sizes if isinstance(actions, Factored) else (actions,)
        encoded = actions.size if isinstance(actions, Continuous) else sum(self.sizes or ())
        self.linear = eqx.nn.Linear(width + encoded, size, dtype=jnp.float32, key=key)

    def __call__(self, features: jax.Array, action: jax.Array) -> jax.Array:
        """Features (width,) and an action as on a tape → the next observation (n,), at unit scale."""
        if self.sizes is not None:
            parts = [action] if action.ndim == 0 else list(action)
            action = jnp.concatenate([jax.nn.one_hot(part, n) for part, n in zip(parts, self.sizes, strict=True)])
        return self.linear(jnp.concatenate((features, action)))
