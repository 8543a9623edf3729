"""Linear attention over episodes laid end to end: products inside a chunk of steps, a recurrence between chunks."""

from functools import partial
from operator import index
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Two CPU cores, with gradient: the fastest at 1,100 steps of 16 x 16 and at 8,192 of 128 x 128; 128 takes a fifth more.
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

    **Arguments:** `query` and `key` (T, j), `value` (T, k), T ≥ 1; `reset` (T,) bool: where set, the state that enters
    t is 0; `initial`, the state X (j, k) and x (j,) before the first step (default 0); `chunk`, steps taken together,
    which changes no result beyond rounding (default 64).

    **Returns:** attended (T, k), normaliser (T,) and the state (X, x) after the last step, in the promoted dtype of
    `query`, `key` and `value` and at least float32.

    Time is O(T (j + k) chunk + T j k), memory O(T (j + k) + chunk² + j k), with the gradient too. Nothing crosses a
    reset, forwards or backwards, NaN and inf included; within an episode all that depends on a non-finite number is
    NaN. Reverse-mode derivatives of every order; forward mode is not defined. Raises `ValueError` on shapes that do
    not fit, on T = 0 and on a chunk that is no positive integer.

    Source: Katharopoulos et al. 2020, Section 3.3; in chunks, Hua et al. 2022 and Yang et al. 2024.
    """
    query, key, value = jnp.asarray(query), jnp.asarray(key), jnp.asarray(value)
    if query.ndim != 2 or key.shape != query.shape or value.ndim != 2 or value.shape[0] != query.shape[0]:
        raise ValueError(
            "linear_attention: query and key must have one shape (T, j) and value a shape (T, k), "
            f"got query {query.shape}, key {key.shape}, value {value.shape}"
        )
    length, key_size = query.shape
    value_size = value.shape[1]
    if length == 0:
        raise ValueError(f"linear_attention: needs at least one step, got query {query.shape}")
    reset = jnp.zeros(length, bool) if reset is None else jnp.asarray(reset)
    if reset.shape != (length,):
        raise ValueError(f"linear_attention: reset {reset.shape} must have shape {(length,)}")
    with jax.numpy_dtype_promotion("standard"):  # what is summed is wider than the inputs, however strict the session
        dtype = jnp.result_type(query.dtype, key.dtype, value.dtype, jnp.float32)
    if initial is None:
        initial = jnp.zeros((key_size, value_size), dtype), jnp.zeros(key_size, dtype)
    key_values, keys = map(jnp.asarray, initial)
    if key_values.shape != (key_size, value_size) or keys.shape != (key_size,):
        raise ValueError(
            f"linear_attention: initial {key_values.shape} and {keys.shape} must have shapes "
            f"{(key_size, value_size)} and {(key_size,)}"
        )
    # The normaliser is one column more of the values, a one at every step.
    value = jnp.concatenate((value.astype(dtype), jnp.ones((length, 1), dtype)), axis=1)
    state = jnp.concatenate((key_values.astype(dtype), keys.astype(dtype)[:, None]), axis=1)
    attend: Any = _attend
    out, state = attend(
        _checked_chunk(chunk, length), False, query.astype(dtype), key.astype(dtype), value, reset, state
    )
    return out[:, :-1], out[:, -1], (state[:, :-1], state[:, -1])


def _checked_chunk(chunk: int | None, length: int) -> int:
    try:
        size = _DEFAULT_CHUNK if chunk is None else index(chunk)
    except TypeError:
        size = 0
    if size < 1:
        raise ValueError(f"linear_attention: chunk must be a positive integer, got {chunk!r}")
    return min(size, length)


# A step alone would compute Xᵀq in full float32 everywhere; accelerators round the operands of products by default.
_dot = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(
    chunk: int,
    reverse: bool,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    reset: jax.Array,
    state: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Σ_s (q_t · k_s) v_s over the s ≤ t of t's episode, or with `reverse` the s ≥ t of it, and the state at the end.

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
        # Numbers the episodes of the chunk; 0 is the one that goes on from the chunk on the left.
        episode = jnp.cumsum(reset)
        reads, writes = episode == 0, episode == episode[-1]
        if reverse:
            reads, writes = writes, reads
        # Zeros stand in for what is not finite, since the product of a masked 0 with a NaN is NaN; whatever depends on
        # it is made NaN by selection. Scores need no stand-in: a row of a product depends on no other row.
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


def _attend_fwd(chunk: int, reverse: bool, *arguments: jax.Array) -> tuple[tuple[jax.Array, jax.Array], Any]:
    return _attend(chunk, reverse, *arguments), arguments


def _attend_bwd(chunk: int, reverse: bool, arguments: Any, cotangents: Any) -> tuple[Any, Any, Any, None, Any]:
    # o_t is linear in each of q_t, k_s and v_s, so its cotangents are sums of the same form with the three exchanged:
    # q̄_t = Σ_s (ō_t · v_s) k_s, and over the t that see s, k̄_s = Σ_t (v_s · ō_t) q_t and v̄_s = Σ_t (k_s · q_t) ō_t.
    # No state is kept for them: the first sum runs as _attend did, the other two the other way.
    query, key, value, reset, state = arguments
    out_bar, end_bar = cotangents
    attend: Any = _attend
    query_bar, _ = attend(chunk, reverse, out_bar, value, key, reset, state.T)
    key_bar, _ = attend(chunk, not reverse, value, out_bar, query, reset, end_bar.T)
    value_bar, state_bar = attend(chunk, not reverse, key, query, out_bar, reset, end_bar)
    return query_bar, key_bar, value_bar, None, state_bar


_attend.defvjp(_attend_fwd, _attend_bwd)
