"""Gaussian noise on the observations of a device environment."""

import equinox as eqx
import jax
import jax.numpy as jnp
from gymnasium import spaces

from memoroids.envs.device.environment import DeviceEnv, EnvState, Step


class Noisy(DeviceEnv):
    """Observations with Gaussian noise, clipped to their Box; named before the environment in a list of base classes.

    `noise_sigma`: the standard deviation of the noise.
    """

    noise_sigma: float = eqx.field(static=True, default=0.1)

    def reset(self, key: jax.Array) -> tuple[EnvState, jax.Array]:
        """As without noise, and then with it."""
        begin, noise = jax.random.split(key)
        state, observation = super().reset(begin)
        return state, self._noisy(observation, noise)

    def step(self, state: EnvState, action: jax.Array, key: jax.Array) -> tuple[EnvState, Step]:
        """As without noise, and then with it."""
        state, step = super().step(state, action, key)
        return state, step._replace(observation=self._noisy(step.observation, key))

    def _noisy(self, observation: jax.Array, key: jax.Array) -> jax.Array:
        space = self.observation_space
        assert isinstance(space, spaces.Box)
        noisy = observation + self.noise_sigma * jax.random.normal(key, space.shape)
        return jnp.clip(noisy, jnp.asarray(space.low), jnp.asarray(space.high))
