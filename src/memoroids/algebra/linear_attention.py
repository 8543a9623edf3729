"""Linear attention over concatenated episodes: the sums of keys and values that do not decay."""

import jax
import jax.numpy as jnp

from memoroids.algebra.decayed_attention import DEFAULT_CHUNK, attend
from memoroids.algebra.matrix_chunks import checked_chunk


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

    Time is O(T (j + k) chunk + T j k) and memory O(T (j + k) + T j k / chunk + chunk²), gradient included. Neither
    values nor gradients cross a reset, not even NaN and inf; within an episode, everything that depends on a non-finite
    number is NaN. Derivatives of every order and mode are defined. Raises `ValueError` if shapes do not fit, if an
    array is complex, or if `chunk` is not a positive integer.

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
    chunk = checked_chunk("linear_attention", chunk, DEFAULT_CHUNK)
    # The normaliser is computed as an additional column of the values that is 1 at every step.
    value = jnp.concatenate((value.astype(dtype), jnp.ones((length, 1), dtype)), axis=1)
    state = jnp.concatenate((key_values.astype(dtype), keys.astype(dtype)[:, None]), axis=1)
    if length:
        query, key, chunk = query.astype(dtype), key.astype(dtype), min(chunk, length)
        out, state = attend(query, key, value, None, reset, state, chunk=chunk)
    else:
        out = value
    return out[:, :-1], out[:, -1], (state[:, :-1], state[:, -1])
