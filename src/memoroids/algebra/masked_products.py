"""Matrix products under a mask of pairs, by selection: nothing that the mask leaves out reaches a result."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memoroids.algebra.linear_map import Arrays, linear_map

# By default accelerators round the operands of matrix products; a single step computes its products in full float32.
dot = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


@jax.custom_jvp
def masked_scores(mask: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """rows_t · columns_s where `mask[t, s]`, else 0: (t, s) of rows (t, n) and columns (s, n).

    Derivatives of every order and mode are defined. They are selections too: a cotangent, or a row or column, that is
    NaN reaches the derivatives of those only with which the mask pairs it.
    """
    return jnp.where(mask, dot(rows, columns.T), 0)


def masked_sum(mask: jax.Array, weights: jax.Array, values: jax.Array) -> jax.Array:
    """Σ_s weights_ts values_s over the s with `mask[t, s]`: (t, n) of weights (t, s) and values (s, n).

    Derivatives are as for `masked_scores`. A row of values that is not wholly finite makes NaN of all its sums.
    """
    return _sum(False, mask, weights, values)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sum(over_t: bool, mask: jax.Array, weights: jax.Array, values: jax.Array) -> jax.Array:
    """`masked_sum`, or Σ_t weights_ts values_t if `over_t`, which spares transposed copies of mask and weights."""
    # Non-finite rows are replaced by zeros, since the product of a masked 0 with a NaN is NaN.
    bad = ~jnp.all(jnp.isfinite(values), axis=1)
    kept, finite = jnp.where(mask, weights, 0), jnp.where(bad[:, None], 0, values)
    sums = dot(kept.T if over_t else kept, finite)
    hit = jnp.any(mask & (bad[:, None] if over_t else bad[None, :]), axis=0 if over_t else 1)
    return jnp.where(hit[:, None], jnp.nan, sums)


@masked_scores.defjvp
def _scores_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    return _bilinear_jvp(masked_scores, _scores_transposed, (), primals, tangents)


@_sum.defjvp
def _sum_jvp(over_t: bool, primals: Any, tangents: Any) -> tuple[Any, Any]:
    return _bilinear_jvp(partial(_sum, over_t), _sum_transposed, (over_t,), primals, tangents)


def _bilinear_jvp(product: Any, transposed: Any, options: tuple, primals: Any, tangents: Any) -> tuple[Any, Any]:
    (dot,) = linear_map(partial(_tangent, product), partial(transposed, *options), (), primals, tangents[1:])
    return product(*primals), dot


def _tangent(product: Any, residuals: Arrays, dots: Arrays) -> Arrays:
    mask, left, right = residuals
    left_dot, right_dot = dots
    return (product(mask, left_dot, right) + product(mask, left, right_dot),)


def _scores_transposed(residuals: Arrays, cotangents: Arrays) -> Arrays:
    mask, rows, columns = residuals
    (bar,) = cotangents
    return _sum(False, mask, bar, columns), _sum(True, mask, bar, rows)


def _sum_transposed(over_t: bool, residuals: Arrays, cotangents: Arrays) -> Arrays:
    mask, weights, values = residuals
    (bar,) = cotangents
    of_weights = masked_scores(mask, values, bar) if over_t else masked_scores(mask, bar, values)
    return of_weights, _sum(not over_t, mask, weights, bar)
