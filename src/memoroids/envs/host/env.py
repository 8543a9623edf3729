"""Gymnasium environments as the rest of the package sees them: a float vector or image out, one action in."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from gymnasium.wrappers import AtariPreprocessing, TimeLimit

from memoroids._util.messages import one_line
from memoroids.envs.faults import EnvironmentFault
from memoroids.envs.names import is_atari, own_factory, resolve_id
from memoroids.envs.observations import Mixed, Observations, Part, Treatment, one_line_space
from memoroids.envs.spaces import (
    Actions,
    Continuous,
    Factored,
    action_parts,
    action_width,
    actions_of,
    checker,
    options_of,
    space_of,
)

_LARGEST = float(np.finfo(np.float32).max)
"""The largest reward: tapes hold float32."""


def _excerpt(value: Any) -> str:
    """The beginning of a value's representation, for error messages."""
    try:
        return repr(value)[:100]
    except Exception:
        return f"of type {type(value).__name__}"


@contextmanager
def making(what: str, id_: str, options: dict[str, Any] | None) -> Iterator[None]:
    """Turns whatever is raised within the block into a `ValueError` that says `what` cannot be made."""
    try:
        yield
    except (Exception, SystemExit) as error:  # a user's module or constructor may raise any exception
        given = f" with options {options}" if options else ""
        raise ValueError(f"cannot make {what} {id_!r}{given}: {one_line(error)}") from error


def _make(id_: str, options: dict[str, Any], limit: int | None) -> gym.Env:
    factory = own_factory(id_)
    if factory is not None:
        env = factory(**options)
        if not isinstance(env, gym.Env):
            hint = " (--vector steps one)" if isinstance(env, gym.vector.VectorEnv) else ""
            raise ValueError(f"it is of type {type(env).__name__}, not gymnasium.Env{hint}")
        return env if limit is None else TimeLimit(env, limit)
    # `HostEnv` has its own checks; Gymnasium's warn only once per process and cost time at every step.
    if not is_atari(id_):
        limited = {} if limit is None else {"max_episode_steps": limit}
        return gym.make(id_, disable_env_checker=True, **options | limited)
    # `gym.make` would count the limit in emulator frames; around the preprocessing it counts steps.
    limit = limit or options.get("max_episode_steps")
    options = {"frameskip": 1} | {name: value for name, value in options.items() if name != "max_episode_steps"}
    env = AtariPreprocessing(gym.make(id_, disable_env_checker=True, **options))
    return env if limit is None else TimeLimit(env, limit)


def _own_limit(env: gym.Env) -> int | None:
    """The longest episode according to an environment that ends it by itself, as POPGym's and MiniGrid's do."""
    found = (getattr(env, name, None) for name in ("max_episode_length", "max_steps"))
    return next((limit for limit in found if isinstance(limit, int) and limit > 0), None)


class HostEnv:
    """A Gymnasium environment with float32 vectors or uint8 images out and one action in.

    Observations (Box, Discrete, MultiDiscrete, MultiBinary, and Tuple and Dict of these) are flattened as by
    `gymnasium.spaces.flatten`, discrete parts one-hot and texts left out. An observation that is one image is not
    flattened: (H, W, C) uint8, with C = 1 if there is no third axis. Images among other parts come first in the vector,
    as `layout` says. `memoroids.envs.observations.Observations` defines what an image is; `observation` overrides it.

    A MultiDiscrete or MultiBinary action is one index into the product of its parts, or the option of each if there are
    many (`memoroids.envs.spaces.actions_of`); a Box action is clipped to the Box. Atari games (ALE/…) are wrapped in
    `gymnasium.wrappers.AtariPreprocessing`: every fourth frame, 84 x 84 grey levels, no frame stacking.

    With `previous_action` the last action is appended, each of its parts one-hot, all zeros at a begin; None follows
    the environment (POPGym's `obs_requires_prev_action`). With `previous_reward` the last reward is appended, 0 at a
    begin. With `step_periods` the sine and cosine of 2π step / period are appended for each period, so that a memory
    without a notion of order can tell when something happened. Nothing can be appended to images.

    `options`: keyword arguments for `gymnasium.make`, or for the factory if `name` is "package.module:factory". `made`:
    the environment, where it has been made already. `max_episode_steps`: steps after which an episode is truncated,
    instead of the environment's own limit. With `check_bounds` an observation outside the bounds of its Box is a fault:
    Gymnasium's own environments return some.

    Raises `ValueError` for an unknown id, invalid options, a space that is not supported, or if something is to be
    appended to an image. `reset` and `step` raise `EnvironmentFault` if the environment misbehaves.
    """

    def __init__(
        self,
        name: str,
        *,
        options: dict[str, Any] | None = None,
        max_episode_steps: int | None = None,
        previous_action: bool | None = None,
        previous_reward: bool = False,
        step_periods: tuple[float, ...] = (),
        observation: Treatment = "auto",
        check_bounds: bool = False,
        made: gym.Env | None = None,
    ):
        self.id = resolve_id(name)
        if made is None:
            with making("environment", self.id, options):
                made = _make(self.id, options or {}, max_episode_steps)
        self.env = made
        observation_space = space_of(self.id, self.env, "observation_space")
        self.actions: Actions = actions_of(self.id, space_of(self.id, self.env, "action_space"))
        """The number of discrete actions, the sizes of their parts, or the box of continuous ones."""
        self._observations = Observations(self.id, observation_space, observation)
        self.notices: list[str] = self._observations.notices
        """What the user should know about the environment, a line each."""
        image = self._image = self._observations.image
        self._check = checker(observation_space, bounds=check_bounds)
        if image and (previous_action or previous_reward or step_periods):
            raise ValueError(
                f"{self.id}: observations are images {image.image}: cannot append a previous action, reward or step "
                "periods"
            )
        if previous_action is None:
            wanted = getattr(self.env.unwrapped, "obs_requires_prev_action", False)
            previous_action = bool(wanted) and not image
        self.previous_action, self.previous_reward = previous_action, previous_reward
        self._tail = np.zeros(action_width(self.env.action_space) * previous_action + previous_reward, np.float32)
        self._frequencies = 2 * np.pi / np.asarray(step_periods)
        self.joined = self._tail.size + 2 * self._frequencies.size
        """How many numbers are joined to the environment's own observation."""
        self.ranges = self._observations.ranges(
            self._tail.size - previous_reward, previous_reward, self._frequencies.size
        )
        """What is known of the scale of each element of an observation; None if it is an image."""
        self.layout = self._observations.layout(self.joined)
        """The shape of one observation as networks need it: (n,), (H, W, C) of an image, or `Mixed`."""
        self.observation_shape: tuple[int, ...] = (self.layout.size,) if isinstance(self.layout, Mixed) else self.layout
        """The shape of the array of one observation: (n,), or (H, W, C) of an image."""
        self.observation_dtype = np.dtype(np.uint8 if image else np.float32)
        self.observation_size = math.prod(self.observation_shape)
        declared = self.env.spec.max_episode_steps if self.env.spec else None
        self.max_length: int | None = max_episode_steps or declared or _own_limit(self.env.unwrapped)
        """The longest episode according to the environment, None if it does not say. A hint, not a guarantee."""
        self._step = 0

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Observations.limits`: those of the environment's own observations."""
        return self._observations.limits()

    def reset(self, seed: int) -> np.ndarray:
        """Resets the environment with `seed`; returns o_0 of `observation_shape` and `observation_dtype`.

        Raises `EnvironmentFault` if the environment misbehaves.
        """
        try:
            observation, _ = self.env.reset(seed=seed)
        except (Exception, SystemExit) as error:
            raise EnvironmentFault(f"{self.id} raised at reset (seed {seed}): {one_line(error)}") from error
        return self.began(observation)

    def began(self, observation: Any) -> np.ndarray:
        """o_0 of an episode that begins with what the environment shows. Raises `EnvironmentFault`."""
        self._step = 0
        self._tail[:] = 0
        return self._observe(observation)

    def step(self, action: int | np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """Takes an action; returns the observation, the reward, terminated and truncated.

        The action is an int in [0, actions), or (parts,) ints or (size,) floats, as `actions` says. Raises `ValueError`
        for an int out of its range, and `EnvironmentFault` if the environment misbehaves.
        """
        native, encoded = self.native(action)
        try:
            observation, reward, terminated, truncated, _ = self.env.step(native)
        except (Exception, SystemExit) as error:
            raise EnvironmentFault(f"{self.id} raised at step {self._step + 1}: {one_line(error)}") from error
        return self.took(encoded, observation, reward, terminated, truncated)

    def took(
        self, encoded: np.ndarray, observation: Any, reward: Any, terminated: Any, truncated: Any
    ) -> tuple[np.ndarray, float, bool, bool]:
        """What `step` returns, from what the environment returned for an action, whose encoding `native` gave.

        Raises `EnvironmentFault`.
        """
        self._step += 1
        try:
            value = math.nan if isinstance(reward, str | bytes) else float(reward)
        except Exception as error:
            raise EnvironmentFault(f"{self.id} returned the reward {_excerpt(reward)} at step {self._step}") from error
        if not abs(value) <= _LARGEST:
            raise EnvironmentFault(
                f"{self.id} returned the reward {_excerpt(reward)} at step {self._step}, which is not a finite float32"
            )
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(flag, bool | np.bool_):
                raise EnvironmentFault(f"{self.id} returned {name} {flag!r} at step {self._step}, which is not a bool")
        if self.previous_action:
            self._tail[: encoded.size] = encoded
        if self.previous_reward:
            self._tail[-1] = value
        return self._observe(observation), value, bool(terminated), bool(truncated)

    def native(self, action: int | np.ndarray) -> tuple[Any, np.ndarray]:
        """An action in the environment's own form, and its encoding in the next observation.

        Raises `ValueError` for an int out of its range.
        """
        space = self.env.action_space
        if isinstance(self.actions, Continuous):
            clipped = np.clip(np.asarray(action, np.float32), self.actions.low, self.actions.high)
            return clipped.reshape(space.shape or ()).astype(space.dtype), clipped.astype(np.float32)
        if isinstance(space, spaces.Discrete):
            chosen = int(action)
            if not 0 <= chosen < space.n:
                raise ValueError(f"{self.id}: action {action} is not below {space.n}")
            encoded = np.zeros(int(space.n) if self.previous_action else 0, np.float32)
            if self.previous_action:
                encoded[chosen] = 1
            return chosen + int(space.start), encoded
        sizes, start = action_parts(space)
        given, options = np.asarray(action), sizes if isinstance(self.actions, Factored) else self.actions
        if not np.all((given >= 0) & (given < options)):
            raise ValueError(f"{self.id}: action {action} is not below {options}")
        parts = options_of(self.actions, sizes, given)
        encoded = np.zeros(sum(sizes), np.float32)
        encoded[np.cumsum((0, *sizes[:-1])) + parts] = 1
        return (parts + start).reshape(space.shape or ()).astype(space.dtype), encoded

    def _observe(self, observation: Any) -> np.ndarray:
        space = self.env.observation_space
        try:
            if self._image:
                return _image(self._image, self._image.of(observation))
            observation, seen = self._check(observation), self._observations
            flat = np.concatenate([_flat(part, part.of(observation)) for part in (*seen.images, *seen.vectors)])
        except Exception as error:
            raise EnvironmentFault(
                f"{self.id} returned an observation at step {self._step} that is not in {one_line_space(space)}: "
                f"{one_line(error)}"
            ) from error
        if not np.isfinite(flat).all():
            raise EnvironmentFault(f"{self.id} returned a non-finite observation at step {self._step}: {flat}")
        if self._frequencies.size:
            angle = self._frequencies * self._step
            return np.concatenate((flat, self._tail, np.sin(angle), np.cos(angle)), dtype=np.float32)
        return np.concatenate((flat, self._tail)) if self._tail.size else flat

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()


def _flat(part: Part, value: Any) -> np.ndarray:
    """The numbers of a part, (n,) float32: the pixels of an image, channels last, discrete values one-hot."""
    if part.image:
        return _image(part, value).ravel().astype(np.float32)
    if isinstance(part.space, spaces.Discrete | spaces.MultiDiscrete):
        return np.asarray(flatten(part.space, value), np.float32)
    return np.array(value, np.float32).ravel()


def _image(part: Part, value: Any) -> np.ndarray:
    """A copy of an image (H, W, C), since the environment may reuse its array.

    Raises `ValueError` for another shape or dtype.
    """
    image = np.array(value)
    if image.dtype != np.uint8 or image.shape != part.space.shape:
        raise ValueError(f"it has shape {image.shape} and dtype {image.dtype}")
    if part.channels_first:
        return np.ascontiguousarray(np.moveaxis(image, 0, -1))
    assert part.image is not None
    return image.reshape(part.image)
