"""POPGym's pendulums with a hidden velocity, in single precision."""

import math
from typing import NamedTuple

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from memoroids.envs.device.environment import DeviceEnv, Step
from memoroids.envs.device.noise import Noisy

SECONDS, MAX_SPEED, MAX_TORQUE = 0.05, 8.0, 2.0
WORST = 16.2736044
"""The highest cost of a step: hanging down, at full speed and torque."""


class Swing(NamedTuple):
    """The angle from upright in [-π, π), its velocity, and the number of transitions so far, int32."""

    angle: jax.Array
    speed: jax.Array
    time: jax.Array


class PositionOnlyPendulum(DeviceEnv):
    """The observation is the cosine and sine of the angle; the action is a torque. `g` is gravity."""

    max_episode_length: int = eqx.field(static=True, default=200)
    g: float = eqx.field(static=True, default=10.0)

    def __check_init__(self) -> None:
        if self.max_episode_length < 1:
            raise ValueError(f"max_episode_length must be at least 1, got {self.max_episode_length}")

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """All episodes have `max_episode_length` transitions."""
        return self.max_episode_length

    @property
    def min_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """All episodes have `max_episode_length` transitions."""
        return self.max_episode_length

    @property
    def observation_space(self) -> gym.Space:
        """Cosine and sine of the angle."""
        return spaces.Box(-1, 1, (2,), np.float32)

    @property
    def action_space(self) -> gym.Space:
        """The torque."""
        return spaces.Box(-MAX_TORQUE, MAX_TORQUE, (1,), np.float32)

    def reset(self, key: jax.Array) -> tuple[Swing, jax.Array]:
        """Draws the angle from [-π, π) and the velocity from [-1, 1)."""
        angle, speed = jax.random.uniform(key, (2,), minval=-1) * jnp.array((math.pi, 1))
        return Swing(angle, speed, jnp.zeros((), jnp.int32)), _observation(angle)

    def step(self, state: Swing, action: jax.Array, key: jax.Array) -> tuple[Swing, Step]:
        """Applies a torque, clipped to the action space, for 0.05 s."""
        torque = jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
        cost = jnp.square(state.angle) + 0.1 * jnp.square(state.speed) + 0.001 * jnp.square(torque)
        speed = state.speed + (1.5 * self.g * jnp.sin(state.angle) + 3 * torque) * SECONDS
        speed = jnp.clip(speed, -MAX_SPEED, MAX_SPEED)
        # Wrapped at every step, so that many turns do not cost precision.
        angle = (state.angle + speed * SECONDS + math.pi) % (2 * math.pi) - math.pi
        time = state.time + 1
        reward = (1 - cost / (WORST / 2)) / self.max_episode_length
        over = time >= self.max_episode_length
        return Swing(angle, speed, time), Step(_observation(angle), reward, jnp.zeros((), bool), over)


def _observation(angle: jax.Array) -> jax.Array:
    return jnp.stack((jnp.cos(angle), jnp.sin(angle)))


class NoisyPositionOnlyPendulum(Noisy, PositionOnlyPendulum):
    """The observation is the cosine and sine of the angle with Gaussian noise, clipped to the observation space."""
