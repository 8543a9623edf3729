"""What observation and action spaces mean to an agent, the same for host and device environments."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

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


def checker(space: gym.Space, *, bounds: bool) -> Callable[[Any], None]:
    """A check of observations against their space: shapes, kinds of numbers, members and keys, and, with `bounds`,
    whether those of a Box lie within it, give or take one part in a million.

    What it returns raises `ValueError` naming what was wrong; values that cannot be read raise what NumPy does.
    """
    if isinstance(space, spaces.Dict):
        parts = {name: checker(inner, bounds=bounds) for name, inner in space.spaces.items()}

        def check_dict(value: Any) -> None:
            if set(value) != set(parts):
                raise ValueError(f"its keys are {sorted(value)}")
            for name, check in parts.items():
                check(value[name])

        return check_dict
    if isinstance(space, spaces.Tuple):
        inner = [checker(part, bounds=bounds) for part in space.spaces]

        def check_tuple(value: Any) -> None:
            if len(value) != len(inner):
                raise ValueError(f"it has {len(value)} parts")
            for check, part in zip(inner, value, strict=True):
                check(part)

        return check_tuple
    low, high = _range(space)
    if isinstance(space, spaces.Box) and not bounds:
        low = high = None
    shape, dtype = space.shape or (), np.dtype(space.dtype or float)

    def check_array(value: Any) -> None:
        array = np.asarray(value)
        if array.shape != shape:
            raise ValueError(f"it has shape {array.shape}")
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise ValueError(f"it has type {array.dtype}")
        # Written so that NaN, which is in no range, passes: it is told apart by whoever asks.
        if low is not None and ((array < low) | (array > high)).any():
            wrong = np.argmax(((array < low) | (array > high)).ravel())
            at = f" at {wrong}" if shape else ""
            raise ValueError(f"{array.ravel()[wrong]}{at} is outside of it (--no-check-bounds takes it)")

    return check_array


def _range(space: gym.Space) -> tuple[Any, Any]:
    """The smallest and largest values of a space's numbers; none where it bounds nothing."""
    if isinstance(space, spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    if isinstance(space, spaces.Box) and (np.isfinite(space.low).any() or np.isfinite(space.high).any()):
        low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
        # Observations are often a rounding away from the bound.
        return low - 1e-6 * np.maximum(1, np.abs(low)), high + 1e-6 * np.maximum(1, np.abs(high))
    return None, None
