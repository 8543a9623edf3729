"""Gymnasium environments as the rest of the package sees them: a float vector or image out, one action in."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, TimeLimit

from memoroids._util.messages import one_line
from memoroids.envs.faults import EnvironmentFault
from memoroids.envs.host.translation import Translator
from memoroids.envs.interface import Joined
from memoroids.envs.names import is_atari, own_factory, resolve_id
from memoroids.envs.observations import Treatment
from memoroids.envs.spaces import space_of

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


class HostEnv(Translator):
    """A Gymnasium environment with float32 vectors or uint8 images out and one action in.

    How observations and actions are translated, and what may be appended to observations: see `Interface`. Atari games
    (ALE/…) are wrapped in `gymnasium.wrappers.AtariPreprocessing`: every fourth frame, 84 x 84 grey levels, no frame
    stacking. `previous_action` None follows the environment (POPGym's `obs_requires_prev_action`).

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
        previous_action: Joined = None,
        previous_reward: bool = False,
        step_periods: tuple[float, ...] = (),
        observation: Treatment = "auto",
        check_bounds: bool = False,
        made: gym.Env | None = None,
    ):
        id_ = resolve_id(name)
        if made is None:
            with making("environment", id_, options):
                made = _make(id_, options or {}, max_episode_steps)
        self.env = made
        super().__init__(
            id_,
            space_of(id_, made, "observation_space"),
            space_of(id_, made, "action_space"),
            previous_action=previous_action,
            wants_previous_action=bool(getattr(made.unwrapped, "obs_requires_prev_action", False)),
            previous_reward=previous_reward,
            step_periods=step_periods,
            observation=observation,
            check_bounds=check_bounds,
        )
        declared = made.spec.max_episode_steps if made.spec else None
        self.max_length: int | None = max_episode_steps or declared or _own_limit(made.unwrapped)
        """The longest episode according to the environment, None if it does not say. A hint, not a guarantee."""

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
        try:
            return self.first(observation)
        except ValueError as error:
            raise EnvironmentFault(f"{self.id} returned {error}") from error

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
        step = self._step + 1
        try:
            value = math.nan if isinstance(reward, str | bytes) else float(reward)
        except Exception as error:
            raise EnvironmentFault(f"{self.id} returned the reward {_excerpt(reward)} at step {step}") from error
        if not abs(value) <= _LARGEST:
            raise EnvironmentFault(
                f"{self.id} returned the reward {_excerpt(reward)} at step {step}, which is not a finite float32"
            )
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(flag, bool | np.bool_):
                raise EnvironmentFault(f"{self.id} returned {name} {flag!r} at step {step}, which is not a bool")
        try:
            row = self.following(observation, encoded, value)
        except ValueError as error:
            raise EnvironmentFault(f"{self.id} returned {error}") from error
        return row, value, bool(terminated), bool(truncated)

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()
