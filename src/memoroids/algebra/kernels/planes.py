"""Complex numbers in GPU kernels, which know real ones only, as two planes: the real and the imaginary parts."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def planes_of(dtype: Any, *arrays: jax.Array) -> list[list[jax.Array]]:
    """The planes of each array: two if `dtype`, that of the state, is complex, and the array itself otherwise."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return [[jnp.real(array), jnp.imag(array)] for array in arrays]
    return [[array] for array in arrays]


def joined(planes: Sequence[jax.Array]) -> jax.Array:
    """The array of which these are the planes."""
    return planes[0] if len(planes) == 1 else lax.complex(*planes)


def next_state(a: Any, h: Any, x: Any, cut: jax.Array | None) -> list[jax.Array]:
    """The planes of a h + x, given those of the three; where `cut` is True the first term is 0."""
    moved = product(a, h)
    # Selected after the product, so that not even a NaN in the decay of a reset step reaches h.
    kept = moved if cut is None else [jnp.where(cut, jnp.zeros_like(m), m) for m in moved]
    return [m + value for m, value in zip(kept, x, strict=True)]


def product(a: Any, h: Any) -> list[jax.Array]:
    """The planes of the product of two numbers, given theirs."""
    if len(a) == 1:
        return [a[0] * h[0]]
    return [a[0] * h[0] - a[1] * h[1], a[0] * h[1] + a[1] * h[0]]
