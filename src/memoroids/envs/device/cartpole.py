"""POPGym's cart-poles, of which only some of the state is shown; single precision."""

import math
from typing import NamedTuple

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from memoroids.envs.device.environment import DeviceEnv, Step

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
X_LIMIT, ANGLE_LIMIT = 2.4, math.radians(12)


class Pole(NamedTuple):
    """(4,) float32: position, its velocity, angle, its velocity; and the transitions so far, int32."""

    moving: jax.Array
    time: jax.Array


def moved(state: jax.Array, push: jax.Array) -> jax.Array:
    """The state (4,) after 0.02 s of Euler's method; `push` is 1 to the right and 0 to the left."""
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
        return self.max_episode_length

    @property
    def min_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1

    @property
    def action_space(self) -> gym.Space:
        return spaces.Discrete(2)

    def reset(self, key: jax.Array) -> tuple[Pole, jax.Array]:
        moving = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        # Positions, also where only velocities follow.
        return Pole(moving, jnp.zeros((), jnp.int32)), moving[::2]

    def step(self, state: Pole, action: jax.Array, key: jax.Array) -> tuple[Pole, Step]:
        moving, time = moved(state.moving, action), state.time + 1
        fallen = (jnp.abs(moving[0]) > X_LIMIT) | (jnp.abs(moving[2]) > ANGLE_LIMIT)
        reward = jnp.full((), 1 / self.max_episode_length, jnp.float32)
        return Pole(moving, time), Step(self._shown(moving), reward, fallen, time >= self.max_episode_length)

    def _shown(self, moving: jax.Array) -> jax.Array:
        return moving[::2]


class PositionOnlyCartPole(_CartPole):
    """Shows the position and the angle, not how they change."""

    @property
    def observation_space(self) -> gym.Space:
        high = np.array([2 * X_LIMIT, 2 * ANGLE_LIMIT], np.float32)
        return spaces.Box(-high, high, dtype=np.float32)


class VelocityOnlyCartPole(_CartPole):
    """Shows both velocities; at a reset, where they hardly matter, both positions."""

    @property
    def observation_space(self) -> gym.Space:
        return spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def _shown(self, moving: jax.Array) -> jax.Array:
        return moving[1::2]


class NoisyPositionOnlyCartPole(PositionOnlyCartPole):
    """Shows the position and the angle with Gaussian noise, clipped to the observation space."""

    noise_sigma: float = eqx.field(static=True, default=0.1)

    def reset(self, key: jax.Array) -> tuple[Pole, jax.Array]:
        begin, noise = jax.random.split(key)
        state, shown = super().reset(begin)
        return state, self._noisy(shown, noise)

    def step(self, state: Pole, action: jax.Array, key: jax.Array) -> tuple[Pole, Step]:
        state, step = super().step(state, action, key)
        return state, step._replace(observation=self._noisy(step.observation, key))

    def _noisy(self, shown: jax.Array, key: jax.Array) -> jax.Array:
        space = self.observation_space
        assert isinstance(space, spaces.Box)
        noisy = shown + self.noise_sigma * jax.random.normal(key, (2,))
        return jnp.clip(noisy, jnp.asarray(space.low), jnp.asarray(space.high))
