"""Which parts of an observation are images, symbols or numbers, and which are left out: the rule, in one place."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim

from memoroids.envs.spaces import is_text, limits_of, one_line_space

Treatment = Literal["auto", "image", "symbols", "vector"]
"""How uint8 Boxes are treated; see `Observations`."""

LEAST_SIDE = 36
"""The smallest height and width of an image: what the convolutions of the encoder need."""

LARGEST_GRID = 15
"""The largest side of a grid whose bounds do not say that it holds symbols; larger ones may be small pictures."""

MOST_SYMBOLS = 16
"""How many symbols are told apart in one place of a grid whose bounds, 0 and 255, do not say how many there are."""

MOST_INPUTS = 16_384
"""The largest number of inputs that a grid is given one-hot without being asked for."""

NARROW = 10.0
"""The largest half-width of bounds that say what scale observations have; wider ones are often only a type's range."""

ImageShape = tuple[int, int, int]


class Symbols(NamedTuple):
    """The numbers from `start` to before `stop` of a row stand for one of `kinds` symbols each, modulo `kinds`."""

    start: int
    stop: int
    kinds: int


@dataclass(frozen=True)
class Mixed:
    """The shape of rows that are more than one image or one vector of numbers.

    They hold the pixels of each image (H, W, C), then `vector` numbers, of which some stand for symbols: `symbols`, in
    ascending order, which networks read one-hot.
    """

    images: tuple[ImageShape, ...]
    vector: int
    symbols: tuple[Symbols, ...] = ()

    @property
    def pixels(self) -> int:
        """How many numbers of a row are those of images."""
        return sum(map(math.prod, self.images))

    @property
    def size(self) -> int:
        """The length of a row."""
        return self.pixels + self.vector

    @property
    def inputs(self) -> int:
        """The length of the vector as networks read it, with its symbols one-hot."""
        return self.vector + sum((stop - start) * (kinds - 1) for start, stop, kinds in self.symbols)


class Ranges(NamedTuple):
    """What is known of the scale of each element of an observation, (n,) NumPy arrays, symbols one-hot.

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
    """A part of an observation: the keys that lead to it, its space, and (H, W, C) if it is an image.

    `symbols`: how many symbols each of its numbers stands for, 0 if they are numbers.
    """

    path: tuple[str | int, ...]
    space: gym.Space
    image: ImageShape | None = None
    channels_first: bool = False
    symbols: int = 0

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
    whose height and width are at least 36. Other uint8 Boxes of two or three axes are grids of symbols if their upper
    bound is from 2 to 15, or if it is 255 and no axis is longer than 15, such as the 7 x 7 x 3 symbols of MiniGrid:
    such bounds do not say how many symbols there are, so 16 are told apart. Grids of 0 and 1, those of more than 16,384
    inputs one-hot, and other Boxes are numbers as they stand. Discrete and MultiDiscrete parts are one-hot, MultiBinary
    ones numbers. Parts of a Dict or Tuple, however nested, are treated one by one; texts are left out.

    `treatment`: "image" takes every uint8 Box of two or three axes for an image, "symbols" for a grid of as many
    symbols as its bounds allow (16 for 255), "vector" for numbers.

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
        self.notices += [
            f"{name}: the numbers of {part} are read as symbols, modulo {part.symbols} (--observation vector: as "
            "quantities)"
            for part in self.vectors
            if part.symbols
        ]
        self._pixels = sum(math.prod(part.image or ()) for part in self.images)
        self._vector = sum(flatdim(part.space) for part in self.vectors)
        if not self.images and not self._vector:
            raise ValueError(f"{name}: observations of {one_line_space(space)} hold nothing that an agent can see")
        if treatment == "image" and not self.images:
            raise ValueError(
                f"{name}: observations of {one_line_space(space)} hold no image, which is a uint8 Box with two or "
                "three axes: use --observation auto"
            )
        if treatment == "symbols" and not any(part.symbols for part in self.vectors):
            raise ValueError(
                f"{name}: observations of {one_line_space(space)} hold no grid of symbols, which is a uint8 Box with "
                "two or three axes and an upper bound of at least 2: use --observation auto"
            )

    @property
    def image(self) -> Part | None:
        """The image, if observations are nothing else."""
        return self.images[0] if len(self.images) == 1 and not self._vector else None

    def ranges(self, action: int, reward: bool, periods: int) -> Ranges | None:
        """The ranges of an observation that is no image, with what is joined to it; None if it is one.

        Symbols count one-hot, and their scale, as how often each of them is seen, is only known from what is seen.

        `action`: the length of the encoded previous action. `reward`: whether the previous reward is joined, whose
        scale is not known. `periods`: the number of step periods.
        """
        if self.image:
            return None
        parts = [Ranges.known(self._pixels), *map(_ranges, self.vectors)]
        parts.append(Ranges.known(action))
        if reward:
            parts.append(Ranges.known(1)._replace(running=np.ones(1, bool)))
        parts.append(Ranges.known(2 * periods))
        return Ranges(*map(np.concatenate, zip(*parts, strict=True)))

    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest value of each element according to the space, (n,) float64 each, maybe infinite.

        Only Boxes of numbers have finite ones: images and discrete parts are checked whenever they are seen.
        """
        pixels = np.full(self._pixels, np.inf)
        low, high = zip((-pixels, pixels), *(_limits(part.space) for part in self.vectors), strict=True)
        return np.concatenate(low), np.concatenate(high)

    def layout(self, joined: int) -> tuple[int, ...] | Mixed:
        """What networks need to know of observations with `joined` numbers after them: (n,), (H, W, C) or `Mixed`."""
        shapes = tuple(part.image for part in self.images if part.image)
        vector, symbols, start = self._vector + joined, [], self._pixels
        for part in self.vectors:
            stop = start + flatdim(part.space)
            if part.symbols:
                symbols.append(Symbols(start, stop, part.symbols))
            start = stop
        if len(shapes) == 1 and not vector:
            return shapes[0]
        return Mixed(shapes, vector, tuple(symbols)) if shapes or symbols else (vector,)


def _parts(name: str, space: gym.Space, path: tuple[str | int, ...], treatment: Treatment) -> Iterator[Part]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in inner:
            yield from _parts(name, part, (*path, key), treatment)
        return
    part = Part(path, space)
    if isinstance(space, spaces.Box):
        if treatment in ("auto", "image"):
            part = _as_image(part, forced=treatment == "image")
        if treatment in ("auto", "symbols") and not part.image:
            part = part._replace(symbols=_symbols(space, forced=treatment == "symbols"))
    elif not isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) and not is_text(space):
        raise ValueError(
            f"{name}: {part} is a {type(space).__name__} space, which has no fixed size: wrap the environment so that "
            "this part becomes a Box, Discrete, MultiDiscrete or MultiBinary space, or is left out"
        )
    yield part


def _ranges(part: Part) -> Ranges:
    """The ranges of a flattened part: discrete ones, one-hot or 0 and 1, are left as they are unless they are grids."""
    space, known = part.space, Ranges.known(flatdim(part.space) * max(part.symbols, 1))
    if part.symbols or (isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim > 1):
        return known._replace(running=np.ones_like(known.running))
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


def _is_grid(space: spaces.Box) -> bool:
    return space.dtype == np.uint8 and len(space.shape) in (2, 3)


def _symbols(space: spaces.Box, *, forced: bool) -> int:
    """How many symbols each number of a Box that is no image stands for by the rule of `Observations`, 0 for none."""
    most = int(np.max(space.high)) + 1 if _is_grid(space) else 0
    unknown = most == 256
    kinds = MOST_SYMBOLS if unknown else most
    looks_so = max(space.shape, default=0) <= LARGEST_GRID if unknown else most <= MOST_SYMBOLS
    small = kinds * flatdim(space) <= MOST_INPUTS
    return kinds if kinds > 2 and (forced or (looks_so and small)) else 0


def _as_image(part: Part, *, forced: bool) -> Part:
    """The part as an image, if the rule of `Observations` says that it is one; unchanged otherwise."""
    space = part.space
    assert isinstance(space, spaces.Box)
    if not _is_grid(space):
        return part
    first, second, third = (*space.shape, 1)[:3]
    if min(first, second) < LEAST_SIDE and len(space.shape) == 3 and min(second, third) >= LEAST_SIDE:
        shape, channels_first = (second, third, first), True
    else:
        shape, channels_first = (first, second, third), False
    if forced or (min(shape[:2]) >= LEAST_SIDE and (space.low == 0).all() and (space.high == 255).all()):
        return part._replace(image=shape, channels_first=channels_first)
    return part
