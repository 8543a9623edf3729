"""Gymnasium environments as the rest of the system sees them: a float vector or image out, one action in."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim, flatten
from gymnasium.wrappers import AtariPreprocessing, TimeLimit

from memoroids._util.messages import one_line
from memoroids.envs.faults import EnvironmentFault
from memoroids.envs.names import is_atari, resolve_id
from memoroids.envs.spaces import Actions, Continuous, action_parts, action_width, actions_of, checker, image_shape

_LARGEST = float(np.finfo(np.float32).max)
"""Of a reward: tapes hold float32."""


def _shown(value: Any) -> str:
    """The beginning of what was given."""
    try:
        return repr(value)[:100]
    except Exception:
        return f"of type {type(value).__name__}"


def _make(id_: str, options: dict[str, Any]) -> gym.Env:
    # Checks of our own follow below; Gymnasium's warn once a process and cost time at every step.
    if not is_atari(id_):
        return gym.make(id_, disable_env_checker=True, **options)
    # Gymnasium would count a limit in the emulator's frames: it belongs around the preprocessing, which skips some.
    limit = options.get("max_episode_steps")
    options = {"frameskip": 1} | {name: value for name, value in options.items() if name != "max_episode_steps"}
    env = AtariPreprocessing(gym.make(id_, disable_env_checker=True, **options))
    return env if limit is None else TimeLimit(env, limit)


class HostEnv:
    """One copy of a Gymnasium environment, with float32 vectors or uint8 images out and one action in.

    Observations (Box, Discrete, MultiDiscrete, MultiBinary, Tuple and Dict of these) are flattened as
    `gymnasium.spaces.flatten` does, discrete parts one-hot. A Box of uint8 with two or three axes is an image, which
    stays as it is: (H, W, C) uint8, C = 1 where it has no third axis. MultiDiscrete actions become one index into
    their product; those of a Box are clipped to it. Atari's games (ALE/…) come through
    `gymnasium.wrappers.AtariPreprocessing`: every fourth frame, in 84 x 84 grey levels, none stacked.

    With `previous_action` the last action is appended, one-hot for each of its parts and all zeros at a begin; with
    `previous_reward` the last reward, 0 at a begin. None asks the environment (POPGym's `obs_requires_prev_action`).
    With `step_periods` the sine and cosine of 2π step / period are appended for each period, so that a memory without
    an order of its own can tell when something was. Nothing is appended to images.

    `options`: keyword arguments for `gymnasium.make`. Without `check_bounds` observations may lie outside of the bounds
    that their Box declares.

    Raises `ValueError` for an unknown id, options that it does not take, a space that is not supported, or something
    to append to an image, and `EnvironmentFault` where it misbehaves.
    """

    def __init__(
        self,
        name: str,
        *,
        options: dict[str, Any] | None = None,
        previous_action: bool | None = None,
        previous_reward: bool = False,
        step_periods: tuple[float, ...] = (),
        check_bounds: bool = True,
    ):
        self.id = resolve_id(name)
        try:
            self.env = _make(self.id, options or {})
        except (Exception, SystemExit) as error:  # a user's own module or constructor may raise anything
            given = f" with options {options}" if options else ""
            raise ValueError(f"cannot make environment {self.id!r}{given}: {one_line(error)}") from error
        self.actions: Actions = actions_of(self.id, self.env.action_space)
        """How many there are, or the box they lie in."""
        image = self._image = image_shape(self.env.observation_space)
        self._check = checker(self.env.observation_space, bounds=check_bounds)
        self._flat_size = 0 if image else self._flat()
        if image and (previous_action or previous_reward or step_periods):
            raise ValueError(
                f"{self.id} shows images {image}: no previous action, reward or step periods can be joined to them"
            )
        if previous_action is None:
            wanted = getattr(self.env.unwrapped, "obs_requires_prev_action", False)
            previous_action = bool(wanted) and not image
        self.previous_action, self.previous_reward = previous_action, previous_reward
        self._tail = np.zeros(action_width(self.env.action_space) * previous_action + previous_reward, np.float32)
        self._frequencies = 2 * np.pi / np.asarray(step_periods)
        joined = self._tail.size + 2 * self._frequencies.size
        self.observation_shape: tuple[int, ...] = image or (self._flat_size + joined,)
        """Of one observation: (n,), or (H, W, C) of an image."""
        self.observation_dtype = np.dtype(np.uint8 if image else np.float32)
        self.observation_size = math.prod(self.observation_shape)
        limit = self.env.spec.max_episode_steps if self.env.spec else None
        self.max_length: int | None = limit or getattr(self.env.unwrapped, "max_episode_length", None)
        """The longest episode that the environment declares, None where it does not. A hint, not a promise."""
        self._step = 0

    def _flat(self) -> int:
        space = self.env.observation_space
        try:
            return flatdim(space)
        except (NotImplementedError, ValueError) as error:
            raise ValueError(f"{self.id}: observations of {space} cannot be flattened: {one_line(error)}") from error

    def reset(self, seed: int) -> np.ndarray:
        """Starts the episode of `seed`; returns o_0 of `observation_shape` and `observation_dtype`."""
        self._step = 0
        try:
            observation, _ = self.env.reset(seed=seed)
        except (Exception, SystemExit) as error:
            raise EnvironmentFault(f"{self.id} raised at reset (seed {seed}): {one_line(error)}") from error
        self._tail[:] = 0
        return self._observe(observation)

    def step(self, action: int | np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """Does one action, in [0, actions) or (size,) floats; returns observation, reward, terminated and truncated."""
        self._step += 1
        native, told = self._native(action)
        try:
            observation, reward, terminated, truncated, _ = self.env.step(native)
        except (Exception, SystemExit) as error:
            raise EnvironmentFault(f"{self.id} raised at step {self._step}: {one_line(error)}") from error
        try:
            paid = math.nan if isinstance(reward, str | bytes) else float(reward)
        except Exception as error:
            raise EnvironmentFault(f"{self.id} gave the reward {_shown(reward)} at step {self._step}") from error
        if not abs(paid) <= _LARGEST:
            raise EnvironmentFault(
                f"{self.id} gave the reward {_shown(reward)} at step {self._step}, which is no finite float32"
            )
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(flag, bool | np.bool_):
                raise EnvironmentFault(f"{self.id} gave {name} {flag!r} at step {self._step}, which is no bool")
        if self.previous_action:
            self._tail[: told.size] = told
        if self.previous_reward:
            self._tail[-1] = paid
        return self._observe(observation), paid, bool(terminated), bool(truncated)

    def _native(self, action: int | np.ndarray) -> tuple[Any, np.ndarray]:
        """An action as the environment takes it, and as a later observation shows it."""
        space = self.env.action_space
        if isinstance(self.actions, Continuous):
            clipped = np.clip(np.asarray(action, np.float32), self.actions.low, self.actions.high)
            return clipped.reshape(space.shape or ()).astype(space.dtype), clipped.astype(np.float32)
        shape, start = action_parts(space)
        parts = np.asarray(np.unravel_index(int(action), shape))
        told = np.zeros(sum(shape), np.float32)
        told[np.cumsum((0, *shape[:-1])) + parts] = 1
        native = parts + start
        return (int(native[0]) if isinstance(space, spaces.Discrete) else native), told

    def _observe(self, observation: Any) -> np.ndarray:
        space = self.env.observation_space
        try:
            if self._image:
                return _image(space, observation).reshape(self._image)
            self._check(observation)
            flat = np.asarray(flatten(space, observation), np.float32)
        except Exception as error:
            declared = " ".join(str(space).split())[:200]
            raise EnvironmentFault(
                f"{self.id} gave an observation at step {self._step} that is not in {declared}: {one_line(error)}"
            ) from error
        if not np.isfinite(flat).all():
            raise EnvironmentFault(f"{self.id} gave a non-finite observation at step {self._step}: {flat}")
        if self._frequencies.size:
            angle = self._frequencies * self._step
            return np.concatenate((flat, self._tail, np.sin(angle), np.cos(angle)), dtype=np.float32)
        return np.concatenate((flat, self._tail)) if self._tail.size else flat

    def close(self) -> None:
        self.env.close()


def _image(space: gym.Space, value: Any) -> np.ndarray:
    """A copy, since an environment may go on to draw into its own."""
    image = np.array(value)
    if image.dtype != np.uint8 or image.shape != space.shape:
        raise ValueError(f"it has shape {image.shape} and type {image.dtype}")
    return image
