"""Networks of one size: the width, and one size of the memory, that give a network a number of parameters."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.memory.registry import Factory, sizes_of

TOLERANCE = 0.01
"""How far the number of parameters may be from the one that is asked for, as a share of it."""
CLOSE = 0.002
"""How close the width alone must come, so that the memory keeps its default sizes."""
ADJUSTED = ("state_size", "trace_size", "value_size", "hidden_size")
"""Sizes of memories that may be changed: those that do not say how far back a memory looks or how it is divided."""


class Sized(NamedTuple):
    """A width, the memory's sizes, and the number of parameters that they give."""

    width: int
    sizes: dict[str, Any]
    parameters: int


def count_parameters(network: Any) -> int:
    """The number of trainable parameters of a network; the statistics of its normaliser are none."""
    if getattr(network, "normaliser", None) is not None:
        network = eqx.tree_at(lambda n: n.normaliser, network, None)
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(network, _is_parameter)))


def _is_parameter(leaf: Any) -> bool:
    return eqx.is_inexact_array(leaf) or (
        isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    )


def fitted(
    build: Callable[[int, dict[str, Any]], Any], memory: Factory, parameters: int, sizes: dict[str, Any]
) -> Sized:
    """The width, and if need be one of the memory's sizes, whose network is within 1% of `parameters`.

    **Arguments:** `build(width, sizes)`, the network, which is only traced; `memory`, its factory; `sizes`, those of
    the memory that are set, which stay as they are. The width is the one that comes closest with the memory's default
    sizes. Where that is not within 0.2%, the first of `ADJUSTED` that the memory has is changed as well.

    Raises `ValueError`, with the closest number, if none is within 1%.
    """

    def count(width: int, changed: dict[str, Any]) -> int:
        return count_parameters(eqx.filter_eval_shape(lambda: build(width, sizes | changed)))

    below = _widest(lambda width: count(width, {}), parameters)
    found = [Sized(width, dict(sizes), count(width, {})) for width in (below, below + 1)]
    best = min(found, key=lambda each: abs(each.parameters - parameters))
    if abs(best.parameters - parameters) > CLOSE * parameters:
        adjusted = [each for start in found for each in _adjusted(count, start, memory, parameters)]
        best = min([best, *adjusted], key=lambda each: abs(each.parameters - parameters))
    if abs(best.parameters - parameters) > TOLERANCE * parameters:
        raise ValueError(
            f"no width comes within 1% of {parameters:,} parameters: the closest is {best.width}"
            f"{''.join(f', {name} {size}' for name, size in best.sizes.items())}, with {best.parameters:,}; ask for "
            "that many"
        )
    return best


def _widest(count: Callable[[int], int], parameters: int) -> int:
    """The largest width whose network has at most this many parameters, or 1."""
    low, high = 1, 2
    while count(high) <= parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= parameters else (low, middle)
    return low


def _adjusted(
    count: Callable[[int, dict[str, Any]], int], start: Sized, memory: Factory, parameters: int
) -> Iterator[Sized]:
    """`start` with one size of the memory changed to come closest; the number of parameters is affine in that size."""
    defaults = sizes_of(memory)
    name = next((n for n in ADJUSTED if isinstance(defaults.get(n), int) and n not in start.sizes), None)
    if name is None:
        return
    for unit in (1, 2, 4, 8):  # a size may have to be divisible by another one
        try:
            gain = count(start.width, {name: defaults[name] + unit}) - start.parameters
        except ValueError:
            continue
        if gain > 0:
            size = max(1, defaults[name] + unit * round((parameters - start.parameters) / gain))
            with contextlib.suppress(ValueError):
                yield Sized(start.width, start.sizes | {name: size}, count(start.width, {name: size}))
        return
