"""Linear attention over concatenated episodes: matrix products within a chunk of steps, a recurrence between chunks."""

from functools import partial
from operator import index
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memoroids.algebra.linear_map import Arrays, linear_map

# The fastest on two CPU cores, gradient included, for 1,100 steps of 16 x 16 states and for 8,192 steps of 128 x 128;
# chunks of 128 take a fifth longer.
_DEFAULT_CHUNK = 64


def linear_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    reset: jax.Array | None = None,
    initial: tuple[jax.Array, jax.Array] | None = None,
    chunk: int | None = None,
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
    """X_tᵀ q_t and x_t · q_t for every t, with X_t = X_{t-1} + k_t v_tᵀ and x_t = x_{t-1} + k_t.

    **Arguments:** `query` and `key` (T, j), `value` (T, k), real; `reset` (T,) bool: where True, the state that enters
    step t is replaced by 0; `initial`, the state X (j, k) and x (j,) before the first step (default 0); `chunk`, steps
    computed together, which affects results only through rounding (default 64).

    **Returns:** attended (T, k), normaliser (T,) and the state (X, x) after the last step, in the promoted dtype of
    `query`, `key` and `value`, and at least float32.

    Time is O(T (j + k) chunk + T j k) and memory O(T (j + k) + chunk² + j k), gradient included. Neither values nor
    gradients cross a reset, not even NaN and inf; within an episode, everything that depends on a non-finite number is
    NaN. Derivatives of every order and mode are defined. Raises `ValueError` if shapes do not fit, if an array is
    complex, or if `chunk` is not a positive integer.

    Source: Katharopoulos et al. 2020, Section 3.3; the chunked form, Hua et al. 2022 and Yang et al. 2024.
    """
    query, key, value = jnp.asarray(query), jnp.asarray(key), jnp.asarray(value)
    if query.ndim != 2 or key.shape != query.shape or value.ndim != 2 or value.shape[0] != query.shape[0]:
        raise ValueError(
            "linear_attention: query and key must both have shape (T, j) and value shape (T, k), "
            f"got query {query.shape}, key {key.shape}, value {value.shape}"
        )
    length, key_size = query.shape
    value_size = value.shape[1]
    reset = jnp.zeros(length, bool) if reset is None else jnp.asarray(reset)
    if reset.shape != (length,):
        raise ValueError(f"linear_attention: reset {reset.shape} must have shape {(length,)}")
    with jax.numpy_dtype_promotion("standard"):  # sums are at least float32, even if the session forbids promotion
        dtype = jnp.result_type(query.dtype, key.dtype, value.dtype, jnp.float32)
    if initial is None:
        initial = jnp.zeros((key_size, value_size), dtype), jnp.zeros(key_size, dtype)
    key_values, keys = map(jnp.asarray, initial)
    if key_values.shape != (key_size, value_size) or keys.shape != (key_size,):
        raise ValueError(
            f"linear_attention: initial {key_values.shape} and {keys.shape} must have shapes "
            f"{(key_size, value_size)} and {(key_size,)}"
        )
    for name, array in {
        "query": query,
        "key": key,
        "value": value,
        "initial": key_values,
        "initial keys": keys,
    }.items():
        if jnp.iscomplexobj(array):
            raise ValueError(
                f"linear_attention: {name} is {array.dtype}, must be real; use its real and imaginary part"
            )
    chunk = _checked_chunk(chunk)
    # The normaliser is computed as an additional column of the values that is 1 at every step.
    value = jnp.concatenate((value.astype(dtype), jnp.ones((length, 1), dtype)), axis=1)
    state = jnp.concatenate((key_values.astype(dtype), keys.astype(dtype)[:, None]), axis=1)
    if length:
        attend: Any = _attend
        chunk = min(chunk, length)
        out, state = attend(chunk, False, query.astype(dtype), key.astype(dtype), value, reset, state)
    else:
        out = value
    return out[:, :-1], out[:, -1], (state[:, :-1], state[:, -1])


def _checked_chunk(chunk: int | None) -> int:
    try:
        size = _DEFAULT_CHUNK if chunk is None else index(chunk)
    except TypeError:
        size = 0
    if size < 1:
        raise ValueError(f"linear_attention: chunk must be a positive integer, got {chunk!r}")
    return size


# By default accelerators round the operands of matrix products; a single step computes Xᵀq in full float32.
_dot = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _attend(
    chunk: int,
    reverse: bool,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    reset: jax.Array,
    state: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Σ_s (q_t · k_s) v_s over the steps s ≤ t (s ≥ t if `reverse`) of t's episode, and the final state.

    An episode runs from one reset to the step before the next, in either direction.
    """
    length = query.shape[0]
    chunks = -(-length // chunk)

    def split(leaf: jax.Array) -> jax.Array:
        padding = [(0, chunks * chunk - length)] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, padding).reshape(chunks, chunk, *leaf.shape[1:])

    seen = np.tri(chunk, dtype=bool)
    seen = seen.T if reverse else seen

    def body(state: jax.Array, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        query, key, value, reset = inputs
        # The index of each step's episode within the chunk; 0 is the one that began before the chunk.
        episode = jnp.cumsum(reset)
        reads, writes = episode == 0, episode == episode[-1]
        if reverse:
            reads, writes = writes, reads
        # Non-finite entries are replaced by zeros, since the product of a masked 0 with a NaN is NaN; everything that
        # depends on them is then set to NaN by selection. Queries and scores need no replacement: a row of a product
        # depends on no other row of its left factor.
        bad_step = ~(_finite_rows(key) & _finite_rows(value))
        bad_state = ~jnp.all(jnp.isfinite(state))
        key = jnp.where(bad_step[:, None], 0, key)
        value = jnp.where(bad_step[:, None], 0, value)
        finite_state = jnp.where(bad_state, 0, state)

        bad_score = bad_step[None, :] | ~_finite_rows(query)[:, None]
        scores = jnp.where(bad_score, jnp.nan, _dot(query, key.T))
        scores = jnp.where(seen & (episode[:, None] == episode[None, :]), scores, 0)
        carried = jnp.where(bad_state, jnp.nan, _dot(query, finite_state))
        out = _dot(scores, value) + jnp.where(reads[:, None], carried, 0)

        added = _dot(jnp.where(writes[:, None], key, 0).T, value)
        added = jnp.where(jnp.any(bad_step & writes), jnp.nan, added)
        kept = jnp.where(bad_state, jnp.nan, state)
        return jnp.where(episode[-1] == 0, kept, 0) + added, out

    state, out = lax.scan(body, state, jax.tree.map(split, (query, key, value, reset)), reverse=reverse)
    return out.reshape(chunks * chunk, -1)[:length], state


def _finite_rows(rows: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(rows), axis=1)


@_attend.defjvp
def _attend_jvp(chunk: int, reverse: bool, primals: Any, tangents: Any) -> tuple[Any, Any]:
    query_dot, key_dot, value_dot, _, state_dot = tangents
    dots = query_dot, key_dot, value_dot, state_dot
    return _attend(chunk, reverse, *primals), linear_map(_tangent, _transposed, (chunk, reverse), primals, dots)


def _tangent(chunk: int, reverse: bool, residuals: Arrays, dots: Arrays) -> Arrays:
    """The tangents of the output and the final state: the outputs are linear in each of q_t, k_s and v_s."""
    query, key, value, reset, state = residuals
    query_dot, key_dot, value_dot, state_dot = dots
    attend: Any = partial(_attend, chunk, reverse)
    of_query, _ = attend(query_dot, key, value, reset, state)
    of_key, end_of_key = attend(query, key_dot, value, reset, state_dot)
    of_value, end_of_value = attend(query, key, value_dot, reset, jnp.zeros_like(state))
    return of_query + of_key + of_value, end_of_key + end_of_value


def _transposed(chunk: int, reverse: bool, residuals: Arrays, cotangents: Arrays) -> Arrays:
    """The cotangents of query, key, value and state, by sums of the same form with roles exchanged.

    q̄_t = Σ_s (ō_t · v_s) k_s; over the steps t that attend to s, k̄_s = Σ_t (v_s · ō_t) q_t and
    v̄_s = Σ_t (k_s · q_t) ō_t. The first sum runs in the direction of `_attend`, the other two in the opposite one, and
    no intermediate state is stored.
    """
    query, key, value, reset, state = residuals
    out_bar, end_bar = cotangents
    attend: Any = _attend
    query_bar, _ = attend(chunk, reverse, out_bar, value, key, reset, state.T)
    key_bar, _ = attend(chunk, not reverse, value, out_bar, query, reset, end_bar.T)
    value_bar, state_bar = attend(chunk, not reverse, key, query, out_bar, reset, end_bar)
    return query_bar, key_bar, value_bar, state_bar
