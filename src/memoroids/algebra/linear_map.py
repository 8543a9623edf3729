"""Linear functions with a transposition written by hand, for tangents: they map over batches and differentiate."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Arrays = tuple[jax.Array, ...]

_linear_map = Primitive("memoroids_linear_map")
_linear_map.multiple_results = True


def linear_map(
    apply: Callable[..., Arrays], transpose: Callable[..., Arrays], options: tuple, residuals: Arrays, tangents: Arrays
) -> Arrays:
    """`apply(*options, residuals, tangents)`, linear in `tangents`, transposed as told by `transpose`.

    A custom JVP whose tangent is computed by this function has forward- and reverse-mode derivatives: its reverse pass
    is `transpose(*options, residuals, cotangents)`, with cotangents like the result and a result like `tangents`.

    **Arguments:** `options`, hashable; `residuals` and `tangents`, tuples of arrays. Derivatives of higher orders are
    those of `apply` and `transpose`, which must be functions that JAX can differentiate.
    """
    count = len(residuals)
    return tuple(
        _linear_map.bind(*residuals, *tangents, apply=apply, transpose=transpose, options=options, count=count, axes=())
    )


def _run(*operands: Any, apply: Any, transpose: Any, options: tuple, count: int, axes: tuple) -> Arrays:
    """`apply`, over one batch axis for each entry of `axes`, which says for every operand whether it has that axis."""
    del transpose

    def run(*operands: Any) -> Arrays:
        return apply(*options, operands[:count], operands[count:])

    return _over(run, axes)(*operands)


def _over(function: Callable[..., Any], axes: tuple[tuple[int | None, ...], ...]) -> Callable[..., Any]:
    for each in axes:
        function = jax.vmap(function, in_axes=each)
    return function


def _abstract(*operands: Any, **params: Any) -> list[Any]:
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in operands]
    return [ShapedArray(out.shape, out.dtype) for out in jax.eval_shape(partial(_run, **params), *shapes)]


def _jvp(primals: Any, tangents: Any, *, count: int, **params: Any) -> tuple[Any, Any]:
    dots = [ad.instantiate_zeros(dot) for dot in tangents]
    if all(isinstance(dot, ad.Zero) for dot in tangents[:count]):
        run = partial(_linear_map.bind, *primals[:count], count=count, **params)
        return run(*primals[count:]), run(*dots[count:])
    return jax.jvp(partial(_run, count=count, **params), tuple(primals), tuple(dots))


def _transpose(cotangents: Any, *operands: Any, apply: Any, transpose: Any, options: tuple, count: int, axes: tuple):
    del apply
    residuals, tangents = operands[:count], operands[count:]

    def run(*operands: Any) -> Arrays:
        return transpose(*options, operands[:count], operands[count:])

    # Tangents, and so cotangents, have all batch axes.
    of_cotangents = tuple((*each[:count], *[0] * len(cotangents)) for each in axes)
    bars = _over(run, of_cotangents)(*residuals, *[ad.instantiate_zeros(bar) for bar in cotangents])
    wanted = [bar if ad.is_undefined_primal(tangent) else None for bar, tangent in zip(bars, tangents, strict=True)]
    return [None] * count + wanted


def _batch(operands: Any, dims: Any, *, count: int, axes: tuple, **params: Any) -> tuple[Any, Any]:
    size = next(operand.shape[dim] for operand, dim in zip(operands, dims, strict=True) if dim is not None)
    moved, places = [], []
    for i, (operand, dim) in enumerate(zip(operands, dims, strict=True)):
        if dim is not None:
            operand = jnp.moveaxis(operand, dim, 0)
        elif i >= count:
            operand = jnp.broadcast_to(operand[None], (size, *operand.shape))
        moved.append(operand)
        places.append(None if dim is None and i < count else 0)
    outs = _linear_map.bind(*moved, count=count, axes=(*axes, tuple(places)), **params)
    return outs, [0] * len(outs)


_linear_map.def_impl(_run)
_linear_map.def_abstract_eval(_abstract)
ad.primitive_jvps[_linear_map] = _jvp
ad.primitive_transposes[_linear_map] = _transpose
batching.primitive_batchers[_linear_map] = _batch
mlir.register_lowering(_linear_map, mlir.lower_fun(_run, multiple_results=True))
