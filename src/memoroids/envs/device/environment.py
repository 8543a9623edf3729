"""What a JAX environment is: pure functions on one copy, its spaces, and how long its episodes can be."""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import gymnasium as gym
import jax

EnvState = Any
"""A pytree of arrays: what an environment carries from one step to the next."""


class Step(NamedTuple):
    """What an action led to: the observation as its space has it, the reward, and how the episode ended if it did."""

    observation: Any
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array


class DeviceEnv(eqx.Module):
    """One copy of an environment as pure functions, to be compiled and mapped over copies.

        state, observation = env.reset(key)
        state, (observation, reward, terminated, truncated) = env.step(state, action, key)

    A subclass defines the two functions, both spaces (Gymnasium's: Box, Discrete, MultiDiscrete, MultiBinary, Tuple or
    Dict of them for observations; Discrete, MultiDiscrete or Box for actions) and `max_length`. It resets nothing by
    itself: `step` is not called after an end.

    `max_length`: transitions in the longest episode, static, since it fixes shapes; `step` sets `truncated` there or
    earlier, or terminates. `min_length`: transitions in the shortest; equal to `max_length` where all episodes have one
    length. `requires_previous_action`: whether the observation alone does not say enough.
    """

    max_length: eqx.AbstractVar[int]
    min_length: eqx.AbstractVar[int]
    requires_previous_action: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def observation_space(self) -> gym.Space:
        """What `reset` and `step` show, before anything is flattened."""

    @property
    @abc.abstractmethod
    def action_space(self) -> gym.Space:
        """What `step` takes."""

    @abc.abstractmethod
    def reset(self, key: jax.Array) -> tuple[EnvState, Any]:
        """An episode's first state and observation."""

    @abc.abstractmethod
    def step(self, state: EnvState, action: jax.Array, key: jax.Array) -> tuple[EnvState, Step]:
        """One action: an int32 scalar, (parts,) int32 of a MultiDiscrete space, or floats within a Box."""
