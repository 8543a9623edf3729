"""POPGym's bandit, whose arms pay with probabilities of their own in every episode."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
from gymnasium import spaces

from memoroids.envs.device.environment import DeviceEnv, Step


class Arms(NamedTuple):
    """How likely each arm pays, (num_bandits,) float32, and the transitions so far, int32."""

    chance: jax.Array
    time: jax.Array


class MultiarmedBandit(DeviceEnv):
    """Shows whether the arm that was pulled last paid, not which one that was."""

    requires_previous_action: ClassVar[bool] = True
    num_bandits: int = eqx.field(static=True, default=10)
    episode_length: int = eqx.field(static=True, default=200)

    def __check_init__(self) -> None:
        if self.num_bandits < 1 or self.episode_length < 1:
            given = f"{self.num_bandits} and {self.episode_length}"
            raise ValueError(f"num_bandits and episode_length must be at least 1, got {given}")

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.episode_length

    @property
    def min_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.episode_length

    @property
    def observation_space(self) -> gym.Space:
        return spaces.Discrete(2)

    @property
    def action_space(self) -> gym.Space:
        return spaces.Discrete(self.num_bandits)

    def reset(self, key: jax.Array) -> tuple[Arms, jax.Array]:
        zero = jnp.zeros((), jnp.int32)
        return Arms(jax.random.uniform(key, (self.num_bandits,)), zero), zero

    def step(self, state: Arms, action: jax.Array, key: jax.Array) -> tuple[Arms, Step]:
        paid = jax.random.uniform(key) < state.chance[action]
        scale = jnp.float32(1 / self.episode_length)
        time = state.time + 1
        reward = jnp.where(paid, scale, -scale)
        step = Step(paid.astype(jnp.int32), reward, jnp.zeros((), bool), time >= self.episode_length)
        return state._replace(time=time), step
