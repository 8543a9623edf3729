"""What observation and action spaces mean to an agent, the same for host and device environments."""

import math
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Continuous(NamedTuple):
    """Actions of `size` numbers, each between its `low` and its `high`."""

    size: int
    low: tuple[float, ...]
    high: tuple[float, ...]


Actions = int | Continuous
"""How many actions there are, or the box they lie in."""


def actions_of(name: str, space: gym.Space) -> Actions:
    """What an agent chooses from. Raises `ValueError`, with the environment's name, for a space without a meaning."""
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = space.low.ravel(), space.high.ravel()
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(f"{name}: actions of {space} are not supported: needs a Box with bounds, or Discrete ones")
        return Continuous(low.size, tuple(low.tolist()), tuple(high.tolist()))
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and len(space.shape or ()) <= 1:
        return math.prod(action_parts(space)[0])
    raise ValueError(f"{name}: actions of {space} are not supported: needs Discrete, one-axis MultiDiscrete or Box")


def action_parts(space: gym.Space) -> tuple[tuple[int, ...], np.ndarray]:
    """The sizes of a discrete space's parts, whose product the one index counts, and the number each starts from."""
    if isinstance(space, spaces.Discrete):
        return (int(space.n),), np.asarray([space.start])
    assert isinstance(space, spaces.MultiDiscrete)
    return tuple(int(n) for n in space.nvec), np.asarray(space.start)


def action_width(space: gym.Space) -> int:
    """Numbers that tell an action in a later observation: one-hot parts, or a box's own."""
    return math.prod(space.shape or ()) if isinstance(space, spaces.Box) else sum(action_parts(space)[0])


def image_shape(space: gym.Space) -> tuple[int, ...] | None:
    """(H, W, C) where observations of a space are images: a Box of uint8 with two or three axes, C = 1 for two."""
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3):
        return (*space.shape, 1)[:3]
    return None
