"""A device environment for tests, whose observations depend only on values drawn at reset."""

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.envs.device.environment import DeviceEnv, Step


class Lengths(DeviceEnv):
    """Episodes of `min_length` to `max_length` actions; odd lengths terminate, even ones are truncated.

    The observation is the episode's tag and step / 10; the reward is action + step / 10.
    """

    max_length: int = eqx.field(static=True, default=5)
    min_length: int = eqx.field(static=True, default=1)
    floats: bool = eqx.field(static=True, default=False)
    parts: int = eqx.field(static=True, default=0)
    """If not 0, actions are that many parts of ten options each."""
    spoiled: float = eqx.field(static=True, default=0.0)
    """The share of episodes, those with the smallest tags, with a NaN observation and an infinite reward at step 2."""

    @property
    def observation_space(self) -> gym.Space:
        return gym.spaces.Box(-1, 1, (2,), np.float32)

    @property
    def action_space(self) -> gym.Space:
        if self.parts:
            return gym.spaces.MultiDiscrete([10] * self.parts)
        return gym.spaces.Box(-2, 3, (2,), np.float32) if self.floats else gym.spaces.Discrete(3)

    def _show(self, state):
        tag, _, step = state
        return jnp.stack((tag, step / 10))

    def reset(self, key):
        tag_key, length_key = jax.random.split(key)
        length = jax.random.randint(length_key, (), self.min_length, self.max_length + 1)
        state = jax.random.uniform(tag_key), length, jnp.zeros((), jnp.int32)
        return state, self._show(state)

    def step(self, state, action, key):
        del key
        tag, length, step = state
        state = tag, length, step + 1
        over = step + 1 >= length
        odd = length % 2 == 1
        bad = (tag < self.spoiled) & (step == 1)
        reward = jnp.where(bad, jnp.inf, jnp.sum(action) + step / 10)
        return state, Step(jnp.where(bad, jnp.nan, self._show(state)), reward, over & odd, over & ~odd)
