"""How agents see observation and action spaces, for host and device environments alike."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Continuous(NamedTuple):
    """Continuous actions: `size` numbers, each between its `low` and its `high`."""

    size: int
    low: tuple[float, ...]
    high: tuple[float, ...]


Actions = int | Continuous
"""The number of discrete actions, or the box of continuous ones."""


def actions_of(name: str, space: gym.Space) -> Actions:
    """The actions of a space. Raises `ValueError`, which names the environment, if the space is not supported."""
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = space.low.ravel(), space.high.ravel()
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(f"{name}: action space {space} is not supported: needs Discrete or a bounded Box")
        return Continuous(low.size, tuple(low.tolist()), tuple(high.tolist()))
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and len(space.shape or ()) <= 1:
        return math.prod(action_parts(space)[0])
    raise ValueError(f"{name}: action space {space} is not supported: needs Discrete, one-axis MultiDiscrete or Box")


def blank_actions(actions: Actions, number: int) -> np.ndarray:
    """`number` zero actions with the shape and dtype of actions on a tape.

    Discrete actions are (number,) int32, continuous ones (number, size) float32.
    """
    if isinstance(actions, Continuous):
        return np.zeros((number, actions.size), np.float32)
    return np.zeros(number, np.int32)


def action_parts(space: gym.Space) -> tuple[tuple[int, ...], np.ndarray]:
    """The size and the start of each part of a discrete space; the agent's index counts the product of the sizes."""
    if isinstance(space, spaces.Discrete):
        return (int(space.n),), np.asarray([space.start])
    assert isinstance(space, spaces.MultiDiscrete)
    return tuple(int(n) for n in space.nvec), np.asarray(space.start)


def action_width(space: gym.Space) -> int:
    """The length of an action's encoding in the next observation: its parts one-hot, or the numbers of a Box."""
    return math.prod(space.shape or ()) if isinstance(space, spaces.Box) else sum(action_parts(space)[0])


def image_shape(space: gym.Space) -> tuple[int, ...] | None:
    """(H, W, C) if observations are images, a uint8 Box with two axes (C = 1) or three; otherwise None."""
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3):
        return (*space.shape, 1)[:3]
    return None


def checker(space: gym.Space, *, bounds: bool) -> Callable[[Any], None]:
    """Makes a function that checks an observation against its space.

    It checks shapes, kinds of numbers, discrete values and keys, and with `bounds` also the bounds of a Box, with a
    tolerance of 1e-6 · max(1, |bound|). The function raises `ValueError`, which names the mismatch; values that NumPy
    cannot convert raise NumPy's own error.
    """
    if isinstance(space, spaces.Dict):
        parts = {name: checker(inner, bounds=bounds) for name, inner in space.spaces.items()}

        def check_dict(value: Any) -> None:
            if set(value) != set(parts):
                raise ValueError(f"it has keys {sorted(value)}")
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
            raise ValueError(f"it has dtype {array.dtype}")
        # Written so that NaN passes: the caller reports non-finite values itself.
        if low is not None and ((array < low) | (array > high)).any():
            first = np.argmax(((array < low) | (array > high)).ravel())
            at = f" at index {first}" if shape else ""
            hint = " (--no-check-bounds skips this check)" if isinstance(space, spaces.Box) else ""
            raise ValueError(f"{array.ravel()[first]}{at} is out of bounds{hint}")

    return check_array


def _range(space: gym.Space) -> tuple[Any, Any]:
    """The smallest and largest values in a space; (None, None) if it has no bounds."""
    if isinstance(space, spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    if isinstance(space, spaces.Box) and (np.isfinite(space.low).any() or np.isfinite(space.high).any()):
        low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
        # Observations often exceed a bound by rounding.
        return low - 1e-6 * np.maximum(1, np.abs(low)), high + 1e-6 * np.maximum(1, np.abs(high))
    return None, None
