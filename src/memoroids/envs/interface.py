"""What agents see of an environment's spaces, for host and device environments alike."""

import math
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.spaces.utils import flatdim

from memoroids.envs.observations import Mixed, Observations, Part, Treatment
from memoroids.envs.spaces import MOST_JOINT, Actions, Continuous, action_width, actions_of

Joined = bool | Literal["discrete"] | None
"""Whether previous actions are joined to observations; see `Interface`."""


class Interface:
    """Rows or images in the place of an environment's observations, and actions as networks give them.

    Observations (Box, Discrete, MultiDiscrete, MultiBinary, and Tuple and Dict of these) are flattened as by
    `gymnasium.spaces.flatten`, discrete parts one-hot and texts left out. An observation that is one image is not
    flattened: (H, W, C) uint8, with C = 1 if there is no third axis. Images among other parts come first in the vector,
    as `layout` says. `memoroids.envs.observations.Observations` defines what an image is; `observation` overrides it.

    A MultiDiscrete or MultiBinary action is one index into the product of its parts, or the option of each if there are
    many (`memoroids.envs.spaces.actions_of`); a Box action is clipped to the Box.

    With `previous_action` the last action is appended, each of its parts one-hot, all zeros at a begin. None leaves it
    to `wants_previous_action`, and "discrete" appends discrete actions too, up to 1,024 options, neither to images.
    With `previous_reward` the last reward is appended, 0 at a begin. With `step_periods` the sine and cosine of 2π step
    / period are appended for each period, so that a memory without a notion of order can tell when something happened.
    Nothing can be appended to images.

    Raises `ValueError` for a space that is not supported, or if something is to be appended to an image.
    """

    def __init__(
        self,
        id_: str,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        previous_action: Joined = False,
        wants_previous_action: bool = False,
        previous_reward: bool = False,
        step_periods: tuple[float, ...] = (),
        observation: Treatment = "auto",
    ):
        self.id = id_
        self.observation_space, self.action_space = observation_space, action_space
        self.actions: Actions = actions_of(id_, action_space)
        """The number of discrete actions, the sizes of their parts, or the box of continuous ones."""
        self._observations = Observations(id_, observation_space, observation)
        self.notices: list[str] = self._observations.notices
        """What the user should know about the environment, a line each."""
        image = self._image = self._observations.image
        if previous_action is None or previous_action == "discrete":
            few = not isinstance(self.actions, Continuous) and action_width(action_space) <= MOST_JOINT
            wanted = wants_previous_action or (previous_action and few)
            previous_action = bool(wanted and not image)
        if image and (previous_action or previous_reward or step_periods):
            raise ValueError(
                f"{id_}: observations are images {image.image}: cannot append a previous action, reward or step periods"
            )
        self.previous_action, self.previous_reward = previous_action, previous_reward
        self.seen: dict[str, Any] = {
            "previous_action": previous_action,
            "previous_reward": previous_reward,
            "step_periods": step_periods,
            "observation": observation,
        }
        """How observations are seen: the keyword arguments of another interface to the same spaces."""
        encoded = action_width(action_space) * previous_action
        self.joined = encoded + previous_reward + 2 * len(step_periods)
        """How many numbers are joined to the environment's own observation."""
        self.ranges = self._observations.ranges(encoded, previous_reward, len(step_periods))
        """What is known of the scale of each element of an observation; None if it is an image."""
        self.layout = self._observations.layout(self.joined)
        """The shape of one observation as networks need it: (n,), (H, W, C) of an image, or `Mixed`."""
        self.observation_shape: tuple[int, ...] = (self.layout.size,) if isinstance(self.layout, Mixed) else self.layout
        """The shape of the array of one observation: (n,), or (H, W, C) of an image."""
        self.observation_dtype = np.dtype(np.uint8 if image else np.float32)
        self.observation_size = math.prod(self.observation_shape)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of an observation that agents see: images, then the others, each in the order of the space."""
        return (*self._observations.images, *self._observations.vectors)

    def sizes_of_parts(self) -> dict[str, int]:
        """How many numbers of a row belong to each part of an observation, and to what is joined to it, in order."""
        found = {
            "".join(f"[{key!r}]" for key in part.path) or "observation": math.prod(part.image)
            if part.image
            else flatdim(part.space)
            for part in self.parts
        }
        joined = {
            "last action": action_width(self.action_space) * self.previous_action,
            "last reward": int(self.previous_reward),
            "clock": 2 * len(self.seen["step_periods"]),
        }
        return found | {name: size for name, size in joined.items() if size}

    @property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Observations.limits`: those of the environment's own observations."""
        return self._observations.limits()
