"""Which parts of an observation are images, which are numbers, and which are left out: the rule, in one place."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim

from memoroids.envs.spaces import is_text, limits_of, one_line_space

Treatment = Literal["auto", "image", "vector"]
"""How uint8 Boxes are treated; see `Observations`."""

LEAST_SIDE = 36
"""The smallest height and width of an image: what the convolutions of the encoder need."""

NARROW = 10.0
"""The largest half-width of bounds that say what scale observations have; wider ones are often only a type's range."""

ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class Mixed:
    """The shape of rows that hold images and a vector: the pixels of each image (H, W, C), then `vector` numbers."""

    images: tuple[ImageShape, ...]
    vector: int

    @property
    def size(self) -> int:
        """The length of a row."""
        return sum(map(math.prod, self.images)) + self.vector


class Ranges(NamedTuple):
    """What is known of the scale of each element of an observation, (n,) NumPy arrays.

    `centre`, `half` float32: the middle and half-width of its bounds, 0 and 1 where it is left as it is or its bounds
    say nothing. `running` bool: whether its scale is only known from what is seen.
    """

    centre: np.ndarray
    half: np.ndarray
    running: np.ndarray

    @classmethod
    def known(cls, size: int) -> "Ranges":
        """The ranges of elements that are left as they are."""
        return cls(np.zeros(size, np.float32), np.ones(size, np.float32), np.zeros(size, bool))


class Part(NamedTuple):
    """A part of an observation: the keys that lead to it, its space, and (H, W, C) if it is an image."""

    path: tuple[str | int, ...]
    space: gym.Space
    image: ImageShape | None = None
    channels_first: bool = False

    def of(self, observation: Any) -> Any:
        """The value of this part in an observation."""
        for key in self.path:
            observation = observation[key]
        return observation

    def __str__(self) -> str:
        return "observation" + "".join(f"[{key!r}]" for key in self.path)


class Observations:
    """What agents see of an observation space.

    A uint8 Box is an image if its bounds are 0 and 255 and it has two axes, (H, W), or three, (H, W, C) or (C, H, W),
    whose height and width are at least 36. Other Boxes, such as the 7 x 7 x 3 symbols of MiniGrid, are numbers as they
    stand: a Box does not say how many symbols there are. Discrete and MultiDiscrete parts are one-hot, MultiBinary ones
    numbers. Parts of a Dict or Tuple, however nested, are treated one by one; texts are left out.

    `treatment`: "image" takes every uint8 Box of two or three axes for an image, "vector" none.

    Raises `ValueError`, which names the environment and the part, for a space without a fixed size, and if nothing is
    left or "image" finds no image.
    """

    def __init__(self, name: str, space: gym.Space, treatment: Treatment = "auto"):
        parts = list(_parts(name, space, (), treatment))
        texts = [part for part in parts if is_text(part.space)]
        self.images = [part for part in parts if part.image]
        """The parts that are images, in the order of the space."""
        self.vectors = [part for part in parts if not part.image and not is_text(part.space)]
        """The parts that are flattened, in the order of the space."""
        self.notices = [f"{name}: {part} is text, which the agent does not see" for part in texts]
        """What the user should know, a line each."""
        self._vector = sum(flatdim(part.space) for part in self.vectors)
        if not self.images and not self._vector:
            raise ValueError(f"{name}: observations of {one_line_space(space)} hold nothing that an agent can see")
        if treatment == "image" and not self.images:
            raise ValueError(
                f"{name}: observations of {one_line_space(space)} hold no image, which is a uint8 Box with two or "
                "three axes: use --observation auto"
            )

    @property
    def image(self) -> Part | None:
        """The image, if observations are nothing else."""
        return self.images[0] if len(self.images) == 1 and not self._vector else None

    def ranges(self, action: int, reward: bool, periods: int) -> Ranges | None:
        """The ranges of an observation that is no image, with what is joined to it; None if it is one.

        `action`: the length of the encoded previous action. `reward`: whether the previous reward is joined, whose
        scale is not known. `periods`: the number of step periods.
        """
        if self.image:
            return None
        parts = [Ranges.known(math.prod(part.image or ())) for part in self.images]
        parts += [_ranges(part.space) for part in self.vectors]
        parts.append(Ranges.known(action))
        if reward:
            parts.append(Ranges.known(1)._replace(running=np.ones(1, bool)))
        parts.append(Ranges.known(2 * periods))
        return Ranges(*map(np.concatenate, zip(*parts, strict=True)))

    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest value of each element according to the space, (n,) float64 each, maybe infinite.

        Only Boxes of numbers have finite ones: images and discrete parts are checked whenever they are seen.
        """
        pixels = np.full(sum(math.prod(part.image or ()) for part in self.images), np.inf)
        low, high = zip((-pixels, pixels), *(_limits(part.space) for part in self.vectors), strict=True)
        return np.concatenate(low), np.concatenate(high)

    def layout(self, joined: int) -> tuple[int, ...] | Mixed:
        """What networks need to know of observations with `joined` numbers after them: (n,), (H, W, C) or `Mixed`."""
        shapes = tuple(part.image for part in self.images if part.image)
        vector = self._vector + joined
        if len(shapes) == 1 and not vector:
            return shapes[0]
        return Mixed(shapes, vector) if shapes else (vector,)


def _parts(name: str, space: gym.Space, path: tuple[str | int, ...], treatment: Treatment) -> Iterator[Part]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in inner:
            yield from _parts(name, part, (*path, key), treatment)
        return
    part = Part(path, space)
    if isinstance(space, spaces.Box):
        part = part._replace(image=None) if treatment == "vector" else _as_image(part, forced=treatment == "image")
    elif not isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) and not is_text(space):
        raise ValueError(
            f"{name}: {part} is a {type(space).__name__} space, which has no fixed size: wrap the environment so that "
            "this part becomes a Box, Discrete, MultiDiscrete or MultiBinary space, or is left out"
        )
    yield part


def _ranges(space: gym.Space) -> Ranges:
    """The ranges of a flattened part: those of discrete ones, which are one-hot or 0 and 1, are left as they are."""
    known = Ranges.known(flatdim(space))
    if not isinstance(space, spaces.Box):
        return known
    low, high = (np.asarray(bound, np.float64).ravel() for bound in (space.low, space.high))
    with np.errstate(over="ignore", invalid="ignore"):
        half, centre = (high - low) / 2, (high + low) / 2
    narrow = (half > 0) & (half <= NARROW) & np.isfinite(centre)
    return Ranges(
        np.where(narrow, centre, known.centre).astype(np.float32),
        np.where(narrow, half, known.half).astype(np.float32),
        ~narrow & (low < high),
    )


def _limits(space: gym.Space) -> tuple[np.ndarray, np.ndarray]:
    """The limits of the elements of a flattened part."""
    size = flatdim(space)
    found = limits_of(space) if isinstance(space, spaces.Box) else None
    low, high = (-np.inf, np.inf) if found is None else found
    return np.zeros(size) + np.ravel(low), np.zeros(size) + np.ravel(high)


def _as_image(part: Part, *, forced: bool) -> Part:
    """The part as an image, if the rule of `Observations` says that it is one; unchanged otherwise."""
    space = part.space
    assert isinstance(space, spaces.Box)
    if space.dtype != np.uint8 or len(space.shape) not in (2, 3):
        return part
    first, second, third = (*space.shape, 1)[:3]
    if min(first, second) < LEAST_SIDE and len(space.shape) == 3 and min(second, third) >= LEAST_SIDE:
        shape, channels_first = (second, third, first), True
    else:
        shape, channels_first = (first, second, third), False
    if forced or (min(shape[:2]) >= LEAST_SIDE and (space.low == 0).all() and (space.high == 255).all()):
        return part._replace(image=shape, channels_first=channels_first)
    return part
