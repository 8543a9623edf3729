"""Between a Gymnasium environment's observations and actions and the rows and numbers that agents see and give."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatten

from memoroids._util.messages import one_line
from memoroids.envs.interface import Interface
from memoroids.envs.observations import Part, one_line_space
from memoroids.envs.spaces import Continuous, Factored, action_parts, checker, options_of


class Translator(Interface):
    """An `Interface` in NumPy for one environment: it remembers the last action and reward, and the step.

    With `check_bounds` an observation must be within the bounds of its Box. `seen`: keyword arguments of `Interface`.
    """

    def __init__(
        self,
        id_: str,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        check_bounds: bool = False,
        **seen: Any,
    ):
        super().__init__(id_, observation_space, action_space, **seen)
        self._check = checker(observation_space, bounds=check_bounds)
        self._frequencies = 2 * np.pi / np.asarray(self.seen["step_periods"])
        self._tail = np.zeros(self.joined - 2 * self._frequencies.size, np.float32)
        self._step = 0

    def first(self, observation: Any) -> np.ndarray:
        """o_0 of an episode, of `observation_shape` and `observation_dtype`. Raises `ValueError`, see `following`."""
        own = self._own(observation, 0)
        self._step, self._tail[:] = 0, 0
        return self._joined(own)

    def following(self, observation: Any, encoded: np.ndarray, reward: float) -> np.ndarray:
        """The next observation of an episode, after an action, whose encoding `native` gave, and its reward.

        Raises `ValueError`, and remembers nothing, if the observation is not in its space, or not finite.
        """
        own = self._own(observation, self._step + 1)
        self._step += 1
        if self.previous_action:
            self._tail[: encoded.size] = encoded
        if self.previous_reward:
            self._tail[-1] = reward
        return self._joined(own)

    def native(self, action: int | np.ndarray) -> tuple[Any, np.ndarray]:
        """An action in the environment's own form, and its encoding in the next observation.

        Raises `ValueError` for an int out of its range.
        """
        space = self.action_space
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

    def _own(self, observation: Any, step: int) -> np.ndarray:
        """The environment's own observation as a row or an image, to which nothing is joined yet."""
        try:
            if self._image:
                return _image(self._image, self._image.of(observation))
            observation, seen = self._check(observation), self._observations
            flat = np.concatenate([_flat(part, part.of(observation)) for part in (*seen.images, *seen.vectors)])
        except Exception as error:
            raise ValueError(
                f"an observation at step {step} that is not in {one_line_space(self.observation_space)}: "
                f"{one_line(error)}"
            ) from error
        if not np.isfinite(flat).all():
            raise ValueError(f"a non-finite observation at step {step}: {flat}")
        return flat

    def _joined(self, own: np.ndarray) -> np.ndarray:
        if self._frequencies.size:
            angle = self._frequencies * self._step
            return np.concatenate((own, self._tail, np.sin(angle), np.cos(angle)), dtype=np.float32)
        return np.concatenate((own, self._tail)) if self._tail.size else own


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
