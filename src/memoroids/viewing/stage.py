"""Environments in which a trained agent is watched: they also show themselves, as pictures or as text."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from memoroids._util.messages import one_line
from memoroids.envs import HostEnv
from memoroids.envs.device import make_device
from memoroids.runs.settings import TrainConfig
from memoroids.runs.trained_agent import TrainedAgent

LONGEST = 100_000
"""Steps after which an episode is given up."""


class Stage(Protocol):
    """One environment, stepped with its own observations and actions."""

    pictures: bool
    """Whether `frame` gives pictures instead of text."""
    frames_per_second: float

    def reset(self, seed: int) -> Any:
        """The first observation of an episode."""
        ...

    def step(self, action: Any) -> tuple[Any, float, bool]:
        """The observation, the reward, and whether the episode is over."""
        ...

    def frame(self) -> np.ndarray | str:
        """A picture (H, W, 3) uint8 of the environment as it is now, or text."""
        ...

    def close(self) -> None:
        """Closes the environment."""
        ...


class HostStage:
    """A Gymnasium environment; with `pictures` it renders if it can. Raises `ValueError` if it cannot be made."""

    def __init__(self, config: TrainConfig, *, pictures: bool):
        id_, options, limit = config.env.id, config.env.options, config.env.max_episode_steps
        env = HostEnv(id_, options=options, max_episode_steps=limit).env
        modes = env.metadata.get("render_modes") or []
        self._mode = next((mode for mode in ("rgb_array", "ansi") if pictures and mode in modes), None)
        if self._mode is not None:
            env.close()
            env = HostEnv(id_, options=options | {"render_mode": self._mode}, max_episode_steps=limit).env
        self._id, self._env, self._said = id_, env, ""
        self.pictures = self._mode == "rgb_array"
        self.frames_per_second = float(env.metadata.get("render_fps") or 15)

    def reset(self, seed: int) -> Any:
        """See `Stage`."""
        observation, _ = self._env.reset(seed=seed)
        self._said = f"sees {short(observation)}"
        return observation

    def step(self, action: Any) -> tuple[Any, float, bool]:
        """See `Stage`."""
        observation, reward, terminated, truncated, _ = self._env.step(action)
        self._said = f"{short(action)} -> {float(reward):g}, sees {short(observation)}"
        return observation, float(reward), bool(terminated or truncated)

    def frame(self) -> np.ndarray | str:
        """See `Stage`. Raises `ValueError` if the environment cannot render after all."""
        if self._mode is None:
            return self._said
        try:
            shown: Any = self._env.render()
        except Exception as error:  # a package that only rendering needs may be missing
            raise ValueError(f"{self._id} cannot be rendered: {one_line(error)}") from error
        if self._mode == "ansi":
            return f"{self._said}\n{shown}"
        picture = np.asarray(shown)
        if picture.ndim != 3 or picture.shape[-1] != 3:
            raise ValueError(f"{self._id} rendered an array of shape {picture.shape}, not a picture (H, W, 3)")
        return picture.astype(np.uint8)

    def close(self) -> None:
        """See `Stage`."""
        self._env.close()


class DeviceStage:
    """An environment in JAX, which has no pictures."""

    pictures, frames_per_second = False, 15.0

    def __init__(self, config: TrainConfig):
        env = make_device(config.env.device_name, config.env.options)
        self._reset, self._step = jax.jit(env.reset), jax.jit(env.step)
        self._said = ""

    def reset(self, seed: int) -> Any:
        """See `Stage`."""
        self._key, reset_key = jax.random.split(jax.random.key(seed))
        self._state, observation = self._reset(reset_key)
        observation = jax.device_get(observation)
        self._said = f"sees {short(observation)}"
        return observation

    def step(self, action: Any) -> tuple[Any, float, bool]:
        """See `Stage`."""
        self._key, step_key = jax.random.split(self._key)
        self._state, taken = self._step(self._state, action, step_key)
        observation, reward, terminated, truncated = jax.device_get(taken)
        self._said = f"{short(action)} -> {float(reward):g}, sees {short(observation)}"
        return observation, float(reward), bool(terminated | truncated)

    def frame(self) -> str:
        """See `Stage`."""
        return self._said

    def close(self) -> None:
        """See `Stage`."""


def stage_of(config: TrainConfig, *, pictures: bool) -> Stage:
    """The environment of a run, to be watched. Raises `ValueError` if it cannot be made."""
    return DeviceStage(config) if config.env.on_device else HostStage(config, pictures=pictures)


def play(
    agent: TrainedAgent, stage: Stage, seed: int, shown: Callable[[float, int], None] = lambda total, step: None
) -> tuple[float, int]:
    """Plays one episode: its return and length. `shown`: called at its beginning and after each step.

    Raises `ValueError` if it does not end within `LONGEST` steps.
    """
    agent.reset()
    observation, reward, total, step, over = stage.reset(seed), 0.0, 0.0, 0, False
    shown(total, step)
    while not over:
        observation, reward, over = stage.step(agent.act(observation, reward))
        total, step = total + reward, step + 1
        shown(total, step)
        if step == LONGEST and not over:
            raise ValueError(f"{agent.id}: an episode did not end within {LONGEST:,} steps")
    return total, step


def short(value: Any) -> str:
    """An observation or action in at most 120 characters of one line."""
    if isinstance(value, np.ndarray) and value.size > 16:
        return f"{value.dtype} {value.shape}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {short(each)}" for name, each in value.items()) + "}"
    if isinstance(value, np.ndarray):
        value = value.round(3).tolist()
    return " ".join(str(value).split())[:120]
