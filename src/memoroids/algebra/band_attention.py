"""Softmax attention of consecutive steps to the windows that end with them."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

# By default accelerators round the operands of matrix products, to other numbers in a block than in a single step.
_einsum = partial(jnp.einsum, precision=lax.Precision.HIGHEST)


def band_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, count: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    """softmax_j(q_t · k_j / √d + bias_tj) v, over the last `count[t]` entries j up to the one of step t.

    **Arguments:** `query` (n, heads, d), of n consecutive steps; `key` (m, heads, d) and `value` (m, heads, k), of the
    entries up to the last of these steps, m = size - 1 + n for windows of `size` entries; `count` (n,), int, at most
    `size`; `bias` (heads, n, m), which is added to the scores.

    **Returns:** (n, heads, k). What a step does not attend to has no effect on its output or on gradients, not even if
    it is NaN or infinite; a step that attends to a non-finite number gives NaN.

    Source: Vaswani et al. 2017, Equation 1; windows, Beltagy et al. 2020.
    """
    steps, entries = query.shape[0], key.shape[0]
    ends = entries - steps + jnp.arange(steps, dtype=jnp.int32)[:, None]
    at = jnp.arange(entries, dtype=jnp.int32)[None, :]
    seen = (at <= ends) & (at > ends - count[:, None])
    # The product of a masked 0 with a NaN is NaN, also in the reverse pass: replaced here, restored by selection below.
    bad_query, bad_entry = ~_finite(query), ~(_finite(key) & _finite(value))
    query = jnp.where(bad_query[:, None, None], 0, query)
    key, value = (jnp.where(bad_entry[:, None, None], 0, array) for array in (key, value))

    scores = _einsum("nhd,mhd->hnm", query, key) / math.sqrt(query.shape[-1])
    scores = scores if bias is None else scores + bias
    scores = jnp.where(seen[None], scores, jnp.finfo(scores.dtype).min)
    weights = jnp.where(seen[None], jax.nn.softmax(scores, axis=-1), 0)
    spoiled = bad_query | jnp.any(seen & bad_entry[None, :], axis=1)
    return jnp.where(spoiled[:, None, None], jnp.nan, _einsum("hnm,mhk->nhk", weights, value))


def by_distance(rows: jax.Array) -> jax.Array:
    """Places the numbers (heads, n, size) of each step and distance at the entries, as a bias (heads, n, size - 1 + n).

    The number at distance k of step t belongs to the entry k steps before t; what is outside of the window is 0.
    """
    heads, steps, size = rows.shape
    entries = size - 1 + steps
    # Rows of one column too many, read as rows of the right length, move by one column from row to row.
    padded = jnp.pad(jnp.flip(rows, -1), ((0, 0), (0, 0), (0, steps)))
    return padded.reshape(heads, -1)[:, : steps * entries].reshape(heads, steps, entries)


def _finite(x: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(x), axis=(1, 2))
