"""The interface of JAX environments: pure functions for one environment, its spaces and its episode lengths."""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import gymnasium as gym
import jax

EnvState = Any
"""A pytree of arrays: the state that an environment passes from one step to the next."""


class Step(NamedTuple):
    """The result of an action: an observation in its space, the reward, and whether and how the episode ended."""

    observation: Any
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array


class DeviceEnv(eqx.Module):
    """One environment as pure functions, to be compiled and mapped over many.

        state, observation = env.reset(key)
        state, (observation, reward, terminated, truncated) = env.step(state, action, key)

    A subclass defines the two functions, both spaces (Gymnasium's: Box, Discrete, MultiDiscrete, MultiBinary, Tuple or
    Dict of them for observations; Discrete, MultiDiscrete, MultiBinary or Box for actions), `max_length` and
    `min_length`. It does not reset itself: the result of `step` after the end of an episode is not used.

    `max_length`: transitions in the longest episode, static because it fixes shapes; `step` must set `truncated` or
    `terminated` by then. `min_length`: transitions in the shortest episode, equal to `max_length` if all episodes have
    the same length. `requires_previous_action`: whether agents need the previous action along with the observation.
    `reward_threshold`: the mean return from which the environment counts as solved, if there is one.
    """

    max_length: eqx.AbstractVar[int]
    min_length: eqx.AbstractVar[int]
    requires_previous_action: ClassVar[bool] = False
    reward_threshold: ClassVar[float | None] = None

    @property
    @abc.abstractmethod
    def observation_space(self) -> gym.Space:
        """The space of observations, before they are flattened."""

    @property
    @abc.abstractmethod
    def action_space(self) -> gym.Space:
        """The space of actions."""

    @abc.abstractmethod
    def reset(self, key: jax.Array) -> tuple[EnvState, Any]:
        """The first state and observation of an episode."""

    @abc.abstractmethod
    def step(self, state: EnvState, action: jax.Array, key: jax.Array) -> tuple[EnvState, Step]:
        """Takes one action: an int32 scalar, int32 in the shape of a space of several parts, or floats within a Box."""
