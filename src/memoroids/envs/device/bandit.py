"""POPGym's bandit; the arms get new winning probabilities in every episode."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
from gymnasium import spaces

from memoroids.envs.device.environment import DeviceEnv, Step


class Arms(NamedTuple):
    """The winning probability of each arm, (num_bandits,) float32, and the number of transitions so far, int32."""

    chance: jax.Array
    time: jax.Array


class MultiarmedBandit(DeviceEnv):
    """The observation tells whether the last pull won, but not which arm was pulled."""

    requires_previous_action: ClassVar[bool] = True
    num_bandits: int = eqx.field(static=True, default=10)
    episode_length: int = eqx.field(static=True, default=200)

    def __check_init__(self) -> None:
        if self.num_bandits < 1 or self.episode_length < 1:
            given = f"{self.num_bandits} and {self.episode_length}"
            raise ValueError(f"num_bandits and episode_length must be at least 1, got {given}")

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """All episodes have `episode_length` transitions."""
        return self.episode_length

    @property
    def min_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """All episodes have `episode_length` transitions."""
        return self.episode_length

    @property
    def observation_space(self) -> gym.Space:
        """1 if the last pull won, else 0."""
        return spaces.Discrete(2)

    @property
    def action_space(self) -> gym.Space:
        """The arm to pull."""
        return spaces.Discrete(self.num_bandits)

    def reset(self, key: jax.Array) -> tuple[Arms, jax.Array]:
        """Draws the winning probabilities uniformly from [0, 1)."""
        zero = jnp.zeros((), jnp.int32)
        return Arms(jax.random.uniform(key, (self.num_bandits,)), zero), zero

    def step(self, state: Arms, action: jax.Array, key: jax.Array) -> tuple[Arms, Step]:
        """Pulls an arm: the reward is 1 / episode_length for a win and its negative for a loss."""
        won = jax.random.uniform(key) < state.chance[action]
        scale = jnp.float32(1 / self.episode_length)
        time = state.time + 1
        reward = jnp.where(won, scale, -scale)
        step = Step(won.astype(jnp.int32), reward, jnp.zeros((), bool), time >= self.episode_length)
        return state._replace(time=time), step
