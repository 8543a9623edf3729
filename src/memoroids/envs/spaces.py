"""How agents see observation and action spaces, for host and device environments alike."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Continuous(NamedTuple):
    """Continuous actions: `size` numbers, each between its `low` and its `high`."""

    size: int
    low: tuple[float, ...]
    high: tuple[float, ...]


class Factored(NamedTuple):
    """Actions of several parts, each one of `sizes[d]` options, whose product is too large to be counted through."""

    sizes: tuple[int, ...]


Actions = int | Factored | Continuous
"""The number of discrete actions, the sizes of their parts, or the box of continuous ones."""

MOST_JOINT = 1_024
"""The largest product of the sizes of several parts that is treated as one set of actions."""

MOST_OUTPUTS = 1_000_000
"""The largest number of outputs that a policy or action values may need."""

LARGEST_ACTION = 1e18
"""The largest bound of a continuous action: its square must be far inside float32."""


def space_of(name: str, env: gym.Env, which: Literal["observation_space", "action_space"]) -> gym.Space:
    """One of an environment's two spaces. Raises `ValueError`, which names the environment, if it is not a space."""
    space = getattr(env, which, None)
    if isinstance(space, gym.Space):
        return space
    got = "none" if space is None else f"one of type {type(space).__name__}"
    raise ValueError(f"{name}: needs a gymnasium.Space as its {which}, but has {got}")


def actions_of(name: str, space: gym.Space) -> Actions:
    """The actions of a space: parts whose sizes have a product of at most `MOST_JOINT` become one set of actions.

    Raises `ValueError`, which names the environment, if the space is not supported or needs more than `MOST_OUTPUTS`.
    """
    outputs = _outputs(space)
    if outputs is None:
        raise ValueError(
            f"{name}: action space {one_line_space(space)} is not supported: needs Discrete, MultiDiscrete, "
            f"MultiBinary, or a Box of floats with bounds of at most {LARGEST_ACTION:g}, which "
            "gymnasium.wrappers.TransformAction can give"
        )
    if not 0 < outputs <= MOST_OUTPUTS:
        raise ValueError(
            f"{name}: action space {one_line_space(space)} needs {outputs:,} network outputs, but from 1 to "
            f"{MOST_OUTPUTS:,} are supported: wrap the environment so that its actions have fewer options"
        )
    if isinstance(space, spaces.Box):
        return Continuous(outputs, tuple(space.low.ravel().tolist()), tuple(space.high.ravel().tolist()))
    sizes, _ = action_parts(space)
    joint = math.prod(sizes)
    return joint if len(sizes) == 1 or joint <= MOST_JOINT else Factored(sizes)


def _outputs(space: gym.Space) -> int | None:
    """The numbers of a bounded Box of floats, or the options of all parts of a discrete space; None for others."""
    match space:
        case spaces.Discrete():
            return int(space.n)
        case spaces.MultiDiscrete():
            return sum(space.nvec.ravel().tolist())
        case spaces.MultiBinary():
            return 2 * math.prod(space.shape)
        case spaces.Box() if np.issubdtype(space.dtype, np.floating):
            bounds = np.stack((space.low, space.high)).astype(np.float64)
            return space.low.size if (np.abs(bounds) <= LARGEST_ACTION).all() else None
    return None


def blank_actions(actions: Actions, number: int) -> np.ndarray:
    """`number` zero actions with the shape and dtype of actions on a tape.

    Discrete actions are (number,) int32, those of several parts (number, parts) int32, continuous ones (number, size)
    float32.
    """
    match actions:
        case Continuous():
            return np.zeros((number, actions.size), np.float32)
        case Factored():
            return np.zeros((number, len(actions.sizes)), np.int32)
    return np.zeros(number, np.int32)


def action_parts(space: gym.Space) -> tuple[tuple[int, ...], np.ndarray]:
    """The size and the start of each part of a discrete space, in C order: (parts,) ints each."""
    match space:
        case spaces.Discrete():
            return (int(space.n),), np.asarray([space.start])
        case spaces.MultiBinary():
            return (2,) * math.prod(space.shape), np.zeros(math.prod(space.shape), space.dtype)
    assert isinstance(space, spaces.MultiDiscrete)
    return tuple(space.nvec.ravel().tolist()), np.asarray(space.start).ravel()


def options_of(actions: Actions, sizes: tuple[int, ...], action: Any) -> Any:
    """The option that an action takes in each part, (parts,) int, for NumPy and JAX alike.

    Where the parts are one set of actions, an action is an index into their product, in C order.
    """
    if isinstance(actions, Factored):
        return action
    strides = [math.prod(sizes[part + 1 :]) for part in range(len(sizes))]
    return action // np.asarray(strides, np.int32) % np.asarray(sizes, np.int32)


def action_width(space: gym.Space) -> int:
    """The length of an action's encoding in the next observation: its parts one-hot, or the numbers of a Box."""
    return math.prod(space.shape or ()) if isinstance(space, spaces.Box) else sum(action_parts(space)[0])


def one_line_space(space: gym.Space) -> str:
    """A space in at most 200 characters of one line."""
    return " ".join(str(space).split())[:200]


def is_text(space: gym.Space) -> bool:
    """Whether the values of a space are strings: Gymnasium's Text, or MiniGrid's missions."""
    return space.dtype is not None and np.dtype(space.dtype).kind in "US"


def checker(space: gym.Space, *, bounds: bool) -> Callable[[Any], Any]:
    """Makes a function that checks an observation against its space and returns it in the space's types.

    It checks shapes, kinds of numbers, discrete values and keys, that every number fits the type of its space, and with
    `bounds` also the bounds of a Box: exactly for integers, with a tolerance of 1e-6 · max(1, |bound|) for floats. It
    does not look at texts. The function raises `ValueError`, which names the mismatch; values that NumPy cannot convert
    raise NumPy's own error.
    """
    if isinstance(space, spaces.Dict):
        parts = {name: checker(inner, bounds=bounds) for name, inner in space.spaces.items()}

        def check_dict(value: Any) -> Any:
            if set(value) != set(parts):
                raise ValueError(f"it has keys {sorted(value)}")
            return {name: check(value[name]) for name, check in parts.items()}

        return check_dict
    if isinstance(space, spaces.Tuple):
        inner = [checker(part, bounds=bounds) for part in space.spaces]

        def check_tuple(value: Any) -> Any:
            if len(value) != len(inner):
                raise ValueError(f"it has {len(value)} parts")
            return tuple(check(part) for check, part in zip(inner, value, strict=True))

        return check_tuple
    shape, dtype = space.shape or (), np.dtype(space.dtype or float)
    if dtype.kind not in "biuf":
        return lambda value: value
    held = _held(dtype)
    limits = None if isinstance(space, spaces.Box) and not bounds else limits_of(space)
    hint = " (--no-check-bounds takes it as it is)" if isinstance(space, spaces.Box) else ""

    def check_array(value: Any) -> np.ndarray:
        array = np.asarray(value)
        if array.shape != shape:
            raise ValueError(f"it has shape {array.shape}")
        if array.dtype.kind not in ("biuf" if dtype.kind == "f" else "biu"):
            raise ValueError(f"it has dtype {array.dtype}")
        if not np.can_cast(array.dtype, held):
            _refuse(array, _beyond(array, held), f"does not fit {held}")
        # Written so that NaN passes: the caller reports non-finite values itself.
        if limits is not None:
            _refuse(array, (array < limits[0]) | (array > limits[1]), f"is out of bounds{hint}")
        return array.astype(dtype, copy=False)

    return check_array


def _refuse(array: np.ndarray, wrong: np.ndarray, why: str) -> None:
    """Raises `ValueError` naming the first element of `array` that is `wrong`, if any is."""
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(f"{array.ravel()[first]}{f' at index {first}' if array.shape else ''} {why}")


def _held(dtype: np.dtype) -> np.dtype:
    """The type that must hold the numbers of a space: its own, but for floats at most float32, which tapes hold."""
    return np.dtype(np.float32) if dtype.kind == "f" and dtype.itemsize > 4 else dtype


def _beyond(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Which numbers are beyond the largest or smallest of a type; NaN and infinity are not."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.isinf(array.astype(dtype)) & np.isfinite(array)
    low, high = _type_range(dtype)
    return (array < low) | (array > high)


def _type_range(dtype: np.dtype) -> tuple[int, int]:
    """The smallest and the largest integer of a type."""
    return (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def limits_of(space: gym.Space) -> tuple[Any, Any] | None:
    """The smallest and largest values in a space of numbers; None if it has no bounds.

    Those of integers are integers. Those of floats have a tolerance of 1e-6 · max(1, |bound|).
    """
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start) + int(space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + (space.nvec - 1)
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    if not isinstance(space, spaces.Box) or not (space.bounded_below.any() or space.bounded_above.any()):
        return None
    dtype = np.dtype(space.dtype)
    if dtype.kind in "biu":
        lowest, highest = _type_range(dtype)
        # What Gymnasium stores for an infinite bound of integers depends on its version.
        return (
            np.where(space.bounded_below, space.low, np.asarray(lowest, dtype)),
            np.where(space.bounded_above, space.high, np.asarray(highest, dtype)),
        )
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    # Observations often exceed a bound by rounding.
    with np.errstate(over="ignore"):
        return low - 1e-6 * np.maximum(1, np.abs(low)), high + 1e-6 * np.maximum(1, np.abs(high))
