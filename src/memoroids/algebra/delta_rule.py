"""The delta rule over concatenated episodes: matrix products in a chunk, a recurrence between chunks."""

import jax
import jax.numpy as jnp

from memoroids.algebra.masked_products import masked_sum
from memoroids.algebra.matrix_chunks import (
    Decays,
    Episodes,
    checked_chunk,
    halves,
    join,
    over_chunks,
    power_of_two,
    spread,
)

_DEFAULT_CHUNK = 32


def delta_rule(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    read: jax.Array,
    log_decay: jax.Array,
    *,
    erase: jax.Array | None = None,
    reset: jax.Array,
    initial: jax.Array,
    chunk: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """X_tᵀ q_t for every t, with X̃_t = exp(g_t) ⊙ X_{t-1} and X_t = X̃_t - e_t (X̃_tᵀ r_t)ᵀ + k_t v_tᵀ.

    What is stored at r is read and taken away along e before k vᵀ is added. With unit keys κ, r = κ and k = e = β κ,
    the value at κ moves towards v by the share β, and β = 1 overwrites it.

    **Arguments:** `query`, `key`, `read` (r) and `erase` (e; None for the key itself) (T, j), `value` (T, k), of one
    real dtype; `log_decay`, the g, (T,) for one decay a step or (T, j) for one a step and row, at most 0 and possibly
    -∞; `reset` (T,) bool: where True, the state that enters step t is replaced by 0; `initial` (j, k), the state before
    the first step; `chunk`, steps computed together, rounded up to a power of two, which affects results only through
    rounding (default 32).

    **Returns:** the products (T, k), and the state (j, k) after the last step.

    The reads of a chunk solve a triangular system of equations, whose inverse is put together from halves, so that no
    number in it is larger than in the inverses of parts of the system. Time is O(T (j + k + chunk) chunk + T j k) and
    memory O(T (j + k) + T j k / chunk + chunk²), gradient included. Resets, non-finite numbers, decays and derivatives
    are as for `decayed_attention`. Raises `ValueError` if shapes do not fit, or if `chunk` is not a positive integer.

    Source: Yang et al. 2024, Parallelizing Linear Transformers with the Delta Rule (chunks); Yang et al. 2025 (decays);
    Peng et al. 2025 (different r, e and k).
    """
    length, key_size = query.shape
    for name, array in {"key": key, "read": read, "erase": key if erase is None else erase}.items():
        if array.shape != query.shape:
            raise ValueError(f"delta_rule: {name} {array.shape} must have the shape of query, {query.shape}")
    if value.shape[:1] != (length,) or initial.shape != (key_size, *value.shape[1:]):
        raise ValueError(
            f"delta_rule: value {value.shape} and initial {initial.shape} must have shapes (T, k) and (j, k), with T "
            f"and j those of query, {query.shape}"
        )
    if log_decay.shape not in ((length,), (length, key_size)):
        raise ValueError(f"delta_rule: log_decay {log_decay.shape} must have shape {(length,)} or {(length, key_size)}")
    size = power_of_two(checked_chunk("delta_rule", chunk, _DEFAULT_CHUNK), length)
    # What is read from a zero state vanishes in the products below, so a number in it that is not finite goes on here.
    value = value + jnp.sum(0 * read, axis=1, keepdims=True)
    arrays = [spread(array, 1) for array in (query, key, value, read)]
    inputs = (
        *arrays,
        None if erase is None else spread(erase, 1),
        log_decay if log_decay.ndim > 1 else log_decay[:, None],
        reset,
    )
    return over_chunks(_chunk, spread(initial, None), inputs, size)


def _chunk(state: jax.Array, inputs: tuple) -> tuple[jax.Array, jax.Array]:
    """The state after a chunk and the products within it."""
    query, key, value, read, erase, log_decay, reset = inputs
    episodes = Episodes(reset)
    decays = Decays(log_decay, episodes)
    old = episodes.carried(decays.entered(read), state)
    reads = decays.scores(read, key)
    if erase is None:  # k (v - u)ᵀ is written, with u what is read: (I + reads of k) (v - u) = v - old
        written = [(key, _solve(reads, value - old, episodes))]
    else:  # (I + reads of e) u = reads of k times v + old
        earlier = episodes.seen & ~jnp.eye(reset.shape[0], dtype=bool)
        known = masked_sum(earlier, reads, value) + old
        written = [(key, value), (erase, -_solve(decays.scores(read, erase), known, episodes))]
    out = episodes.carried(decays.entered(query), state)
    kept = jnp.where(episodes.whole, decays.through(state), 0)
    for column, row in written:
        out = out + masked_sum(episodes.seen, decays.scores(query, column), row)
        kept = kept + episodes.added(decays.left(column), row)
    return kept, out


def _solve(scores: jax.Array, right: jax.Array, episodes: Episodes) -> jax.Array:
    """(I + A)⁻¹ `right` (chunk, k), for the A of those `scores` whose column is an earlier step than their row."""
    size = scores.shape[0]
    inverse = jnp.ones((size, 1, 1), scores.dtype)
    for half in (1 << level for level in range((size - 1).bit_length())):
        blocks = scores.reshape(-1, 2 * half, size // (2 * half), 2 * half)
        below = jnp.moveaxis(jnp.diagonal(blocks, axis1=0, axis2=2), -1, 0)[:, half:, :half]
        first, second = (each[:, :, None] for each in halves(episodes.index, half))
        pairs = second == jnp.swapaxes(first, 1, 2)
        later = (second == jnp.swapaxes(second, 1, 2)) & jnp.tri(half, dtype=bool)[None]
        # [[P, 0], [B, Q]]⁻¹ = [[P⁻¹, 0], [-Q⁻¹ B P⁻¹, Q⁻¹]]
        left = jnp.where(pairs, jax.vmap(masked_sum)(later, inverse[1::2], below), 0)
        corner = jnp.where(pairs, jax.vmap(masked_sum)(pairs, left, inverse[0::2]), 0)
        inverse = join(inverse, -corner)
    return masked_sum(episodes.seen, inverse[0], right)
