"""Gymnasium environments as the rest of the system sees them: a float vector in, one discrete action out."""

import difflib
import importlib
import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim, flatten


class EnvironmentFault(RuntimeError):
    """An environment that misbehaved: the message names it, the step and what it did."""


def popgym_ids() -> list[str]:
    """The ids of POPGym's tasks with discrete actions, registered with Gymnasium on the way."""
    importlib.import_module("popgym")
    # The pendulums act on a continuous scale.
    return [name for name in gym.registry if name.startswith("popgym-") and "Pendulum" not in name]


def short_name(id_: str) -> str:
    """A POPGym id without its prefix and version, as RepeatFirstEasy; other ids without their version 0."""
    return id_.removeprefix("popgym-").removesuffix("-v0")


def resolve_id(name: str) -> str:
    """The Gymnasium id of `name`: itself, or POPGym's where `name` is the short form, as RepeatFirstEasy.

    Raises `ValueError` with the nearest known ids where there is none.
    """
    if name.count(":") == 1:  # "package.module:Id-v0": Gymnasium imports the module, which registers the id
        return name
    popgym = popgym_ids()
    short = {short_name(id_).lower(): id_ for id_ in popgym}
    if name.lower() in short:
        return short[name.lower()]
    if name in gym.registry:
        return name
    lower = {known.lower(): known for known in (*short, *gym.registry)}
    known = {key: short.get(key, value) for key, value in lower.items()}
    near = [known[match] for match in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "`memoroids list envs` shows POPGym's"
    raise ValueError(f"unknown environment {name!r}: {hint}")


class HostEnv:
    """One copy of a Gymnasium environment, with flat float32 observations and a single integer action.

    Observations (Box, Discrete, MultiDiscrete, MultiBinary, Tuple and Dict of these) are flattened as
    `gymnasium.spaces.flatten` does, discrete parts one-hot. MultiDiscrete actions become one index into their product.
    With `previous_action` the last action is appended, one-hot for each of its parts and all zeros at a begin; with
    `previous_reward` the last reward, 0 at a begin. None asks the environment (POPGym's `obs_requires_prev_action`).

    Raises `ValueError` for an unknown id or a space that is not supported, `EnvironmentFault` where it misbehaves.
    """

    def __init__(self, name: str, *, previous_action: bool | None = None, previous_reward: bool = False):
        self.id = resolve_id(name)
        try:
            # Checks of our own follow below; Gymnasium's warn once a process and cost time at every step.
            self.env = gym.make(self.id, disable_env_checker=True)
        except Exception as error:  # a user's own module or constructor may raise anything
            raise ValueError(f"cannot make environment {self.id!r}: {_one_line(error)}") from error
        self._action_shape, self._action_start = self._actions(self.env.action_space)
        self.actions = math.prod(self._action_shape)
        try:
            self._flat_size = flatdim(self.env.observation_space)
        except (NotImplementedError, ValueError) as error:
            raise ValueError(
                f"{self.id}: observations of {self.env.observation_space} cannot be flattened: {_one_line(error)}"
            ) from error
        if previous_action is None:
            previous_action = bool(getattr(self.env.unwrapped, "obs_requires_prev_action", False))
        self.previous_action, self.previous_reward = previous_action, previous_reward
        self._tail = np.zeros(sum(self._action_shape) * previous_action + previous_reward, np.float32)
        self.observation_size = self._flat_size + self._tail.size
        limit = self.env.spec.max_episode_steps if self.env.spec else None
        self.max_length: int | None = limit or getattr(self.env.unwrapped, "max_episode_length", None)
        """The longest episode that the environment declares, None where it does not. A hint, not a promise."""
        self._step = 0

    def _actions(self, space: gym.Space) -> tuple[tuple[int, ...], np.ndarray]:
        if isinstance(space, spaces.Discrete):
            return (int(space.n),), np.asarray([space.start])
        if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
            return tuple(int(n) for n in space.nvec), np.asarray(space.start)
        raise ValueError(
            f"{self.id}: actions of {space} are not supported: DQN needs a Discrete or one-axis MultiDiscrete space"
        )

    def reset(self, seed: int) -> np.ndarray:
        """Starts the episode of `seed`; returns o_0 (observation_size,) float32."""
        self._step = 0
        try:
            observation, _ = self.env.reset(seed=seed)
        except Exception as error:
            raise EnvironmentFault(f"{self.id} raised at reset (seed {seed}): {_one_line(error)}") from error
        self._tail[:] = 0
        return self._observe(observation)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool]:
        """Does one action in [0, actions); returns the observation, reward, terminated and truncated."""
        self._step += 1
        parts = np.asarray(np.unravel_index(action, self._action_shape))
        native = parts + self._action_start
        try:
            observation, reward, terminated, truncated, _ = self.env.step(
                int(native[0]) if isinstance(self.env.action_space, spaces.Discrete) else native
            )
        except Exception as error:
            raise EnvironmentFault(f"{self.id} raised at step {self._step}: {_one_line(error)}") from error
        try:
            reward = float(reward)
        except (TypeError, ValueError) as error:
            raise EnvironmentFault(f"{self.id} gave the reward {reward!r} at step {self._step}") from error
        if not math.isfinite(reward):
            raise EnvironmentFault(f"{self.id} gave the reward {reward} at step {self._step}")
        if self.previous_action:
            self._tail[: sum(self._action_shape)] = 0
            self._tail[np.cumsum((0, *self._action_shape[:-1])) + parts] = 1
        if self.previous_reward:
            self._tail[-1] = reward
        return self._observe(observation), reward, bool(terminated), bool(truncated)

    def _observe(self, observation: Any) -> np.ndarray:
        try:
            _check_discrete(self.env.observation_space, observation)
            flat = np.asarray(flatten(self.env.observation_space, observation), np.float32)
        except Exception as error:
            raise EnvironmentFault(
                f"{self.id} gave an observation at step {self._step} that is not in {self.env.observation_space}: "
                f"{_one_line(error)}"
            ) from error
        if flat.shape != (self._flat_size,):
            raise EnvironmentFault(
                f"{self.id} gave an observation of {flat.size} numbers at step {self._step}, "
                f"its space has {self._flat_size}"
            )
        if not np.isfinite(flat).all():
            raise EnvironmentFault(f"{self.id} gave a non-finite observation at step {self._step}: {flat}")
        return np.concatenate((flat, self._tail)) if self._tail.size else flat

    def close(self) -> None:
        self.env.close()


def _check_discrete(space: gym.Space, value: Any) -> None:
    """Flattening would take a number below a Discrete space for one counted from its end."""
    if isinstance(space, spaces.Discrete):
        if not space.start <= value < space.start + space.n:
            raise ValueError(f"{value} is not in {space}")
    elif isinstance(space, spaces.Tuple):
        for part, inner in zip(space.spaces, value, strict=True):
            _check_discrete(part, inner)
    elif isinstance(space, spaces.Dict):
        for name, part in space.spaces.items():
            _check_discrete(part, value[name])


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
