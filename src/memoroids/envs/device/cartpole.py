"""POPGym's cart-poles with partial observations, in single precision."""

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

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
X_LIMIT, ANGLE_LIMIT = 2.4, math.radians(12)


class Pole(NamedTuple):
    """Position, velocity, angle and angular velocity, (4,) float32, and the number of transitions so far, int32."""

    moving: jax.Array
    time: jax.Array


def moved(state: jax.Array, push: jax.Array) -> jax.Array:
    """The state (4,) after one Euler step of 0.02 s; `push` is 1 to the right and 0 to the left."""
    x, x_dot, angle, angle_dot = state
    force = jnp.where(push == 1, FORCE, -FORCE)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    thrust = (force + POLE * HALF_LENGTH * jnp.square(angle_dot) * sin) / (CART + POLE)
    angle_acc = (GRAVITY * sin - cos * thrust) / (HALF_LENGTH * (4 / 3 - POLE * jnp.square(cos) / (CART + POLE)))
    x_acc = thrust - POLE * HALF_LENGTH * angle_acc * cos / (CART + POLE)
    return jnp.stack(
        (x + SECONDS * x_dot, x_dot + SECONDS * x_acc, angle + SECONDS * angle_dot, angle_dot + SECONDS * angle_acc)
    )


class _CartPole(DeviceEnv):
    max_episode_length: int = eqx.field(static=True, default=200)

    def __check_init__(self) -> None:
        if self.max_episode_length < 1:
            raise ValueError(f"max_episode_length must be at least 1, got {self.max_episode_length}")

    @property
    def max_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Episodes are truncated after `max_episode_length` transitions."""
        return self.max_episode_length

    @property
    def min_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """1, since the pole may fall at any step."""
        return 1

    @property
    def action_space(self) -> gym.Space:
        """0 pushes to the left, 1 to the right."""
        return spaces.Discrete(2)

    def reset(self, key: jax.Array) -> tuple[Pole, jax.Array]:
        """Draws each part of the state from [-0.05, 0.05)."""
        moving = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        # As in POPGym, the position and the angle, even if later observations are the velocities.
        return Pole(moving, jnp.zeros((), jnp.int32)), moving[::2]

    def step(self, state: Pole, action: jax.Array, key: jax.Array) -> tuple[Pole, Step]:
        """Pushes the cart; the episode terminates when the pole falls or the cart leaves the track."""
        moving, time = moved(state.moving, action), state.time + 1
        fallen = (jnp.abs(moving[0]) > X_LIMIT) | (jnp.abs(moving[2]) > ANGLE_LIMIT)
        reward = jnp.full((), 1 / self.max_episode_length, jnp.float32)
        return Pole(moving, time), Step(self._observation(moving), reward, fallen, time >= self.max_episode_length)

    def _observation(self, moving: jax.Array) -> jax.Array:
        return moving[::2]


class PositionOnlyCartPole(_CartPole):
    """The observation is the position and the angle, without their velocities."""

    @property
    def observation_space(self) -> gym.Space:
        """Position in metres and angle in radians, up to twice the limits of an episode."""
        high = np.array([2 * X_LIMIT, 2 * ANGLE_LIMIT], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)


class VelocityOnlyCartPole(_CartPole):
    """The observation is both velocities, except the first, which is the position and the angle."""

    @property
    def observation_space(self) -> gym.Space:
        """Both velocities, unbounded."""
        return spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def _observation(self, moving: jax.Array) -> jax.Array:
        return moving[1::2]


class NoisyPositionOnlyCartPole(Noisy, PositionOnlyCartPole):
    """The observation is the position and the angle with Gaussian noise, clipped to the observation space."""
