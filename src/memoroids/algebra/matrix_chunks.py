"""Chunks of steps for recurrences of matrices: what meets within a chunk, and what passes from chunk to chunk."""

from collections.abc import Callable
from operator import index

import jax
import jax.numpy as jnp
from jax import lax

from memoroids.algebra.masked_products import dot, masked_scores


def checked_chunk(name: str, chunk: int | None, default: int) -> int:
    """`chunk`, or the default for None. Raises `ValueError` unless it is a positive integer."""
    try:
        size = default if chunk is None else index(chunk)
    except TypeError:
        size = 0
    if size < 1:
        raise ValueError(f"{name}: chunk must be a positive integer, got {chunk!r}")
    return size


def power_of_two(chunk: int, length: int) -> int:
    """`chunk`, or `length` if that is less, rounded up to a power of two; 1 for no step."""
    return 1 << (max(min(chunk, length), 1) - 1).bit_length()


def over_chunks(
    body: Callable[[jax.Array, tuple], tuple[jax.Array, jax.Array]], state: jax.Array, inputs: tuple, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """The outputs (T, k) of all chunks and the state after them; `body(state, inputs)` gives state and outputs of one.

    `inputs` are arrays (T, …) or None, the last one the begin flags and the one before it the log decays (T, d), which
    become 0 where the flags are set.
    """
    *others, log_decay, reset = inputs
    length = reset.shape[0]
    chunks = -(-length // chunk)

    def split(leaf: jax.Array) -> jax.Array:
        padding = [(0, chunks * chunk - length)] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, padding).reshape(chunks, chunk, *leaf.shape[1:])

    if log_decay is not None:
        log_decay = jnp.where(reset[:, None], 0, log_decay)
    # The activations within a chunk are recomputed in the reverse pass, which stores the state of its beginning alone.
    body = jax.checkpoint(body, prevent_cse=False)
    state, out = lax.scan(body, state, jax.tree.map(split, (*others, log_decay, reset)))
    return out.reshape(chunks * chunk, out.shape[-1])[:length], state


def spread(array: jax.Array, axis: int | None) -> jax.Array:
    """`array`, NaN along `axis` wherever an entry is not finite. Derivatives are those of the identity."""
    finite = jnp.all(jnp.isfinite(array), axis=axis, keepdims=True)
    return array + jnp.where(finite, 0, jnp.nan).astype(array.dtype)


class Episodes:
    """The steps of a chunk by episodes: which pairs may meet, and what enters and leaves.

    Wherever a product could meet a NaN of another episode, both its operands and its result are selected, so that the
    same holds for its transposes.
    """

    def __init__(self, reset: jax.Array):
        # The index of each step's episode within the chunk; 0 is the one that began before the chunk.
        self.index = jnp.cumsum(reset)
        self.seen = jnp.tri(reset.shape[0], dtype=bool) & (self.index[:, None] == self.index[None, :])
        self.whole = self.index[-1] == 0
        self._reads, self._writes = (self.index == 0)[:, None], (self.index == self.index[-1])[:, None]

    def carried(self, rows: jax.Array, state: jax.Array) -> jax.Array:
        """What `rows` (chunk, j) read from the state (j, k) before the chunk: (chunk, k), 0 after a reset."""
        return jnp.where(self._reads, dot(jnp.where(self._reads, rows, 0), state), 0)

    def added(self, columns: jax.Array, values: jax.Array) -> jax.Array:
        """Σ_t columns_t values_tᵀ (j, k) over the steps of the episode that goes on after the chunk."""
        return dot(jnp.where(self._writes, columns, 0).T, jnp.where(self._writes, values, 0))


class Decays:
    """The decays between the steps of a chunk of a power of two: log decays (chunk, d) that are 0 at a reset.

    The chunk is halved again and again. A pair in different halves decays from the key to the end of the first half and
    from there to the query, so that the scores of all such pairs are one product of matrices.
    """

    def __init__(self, log_decay: jax.Array, episodes: Episodes):
        self._episodes, self._rowwise = episodes, log_decay.shape[1] > 1
        self._levels, self._entering, self._leaving = _log_decays(log_decay, episodes.index)

    def entered(self, rows: jax.Array) -> jax.Array:
        """`rows` (chunk, j), decayed from the chunk's start to each step."""
        return rows * jnp.exp(self._entering)

    def left(self, rows: jax.Array) -> jax.Array:
        """`rows` (chunk, j), decayed from after each step to the chunk's end."""
        return rows * jnp.exp(self._leaving)

    def through(self, state: jax.Array) -> jax.Array:
        """The state (j, k), decayed by the whole chunk if there is no reset in it."""
        return state * jnp.exp(jnp.where(self._episodes.whole, self._entering[-1], 0))[:, None]

    def scores(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """query_t · (key_s decayed from s to t) of the pairs that `Episodes.seen` allows, else 0: (chunk, chunk)."""
        seen, index = self._episodes.seen, self._episodes.index
        if not self._rowwise:
            zeros = jnp.zeros(query.shape[0], query.dtype)
            blocks = [to_query + jnp.swapaxes(from_key, 1, 2) for to_query, from_key in self._levels]
            exponents = jnp.where(seen, lower_triangle(zeros, blocks), 0)
            return masked_scores(seen, query, key) * jnp.exp(exponents)
        blocks = []
        for to_query, from_key in self._levels:
            (_, later), (earlier, _), (first, second) = (
                halves(leaf, to_query.shape[1]) for leaf in (query, key, index)
            )
            pairs = second[:, :, None] == first[:, None, :]
            blocks.append(jax.vmap(masked_scores)(pairs, later * jnp.exp(to_query), earlier * jnp.exp(from_key)))
        return lower_triangle(jnp.sum(query * key, axis=1), blocks)


def halves(leaf: jax.Array, half: int) -> tuple[jax.Array, jax.Array]:
    """The first and second halves, (n, half, …), of the n blocks of 2 `half` steps."""
    blocks = leaf.reshape(-1, 2, half, *leaf.shape[1:])
    return blocks[:, 0], blocks[:, 1]


def _log_decays(
    log_decay: jax.Array, episode: jax.Array
) -> tuple[list[tuple[jax.Array, jax.Array]], jax.Array, jax.Array]:
    """Sums of log decays on either side of the middle of every block, blocks of two steps first; and of the chunk.

    For each size of blocks, (n, half, d): the sums from the middle to each step of the second half, and from after each
    step of the first half to the middle. For the chunk, (chunk, d): from its start to each step, and from after each
    step to its end. Sums stop at the bounds of the step's own episode, whose pairs are the only ones that need them.
    """
    size = log_decay.shape[0]
    to_step, after_step, levels = log_decay, jnp.zeros_like(log_decay), []
    for half in (1 << level for level in range((size - 1).bit_length())):
        (to_first, to_second), (after_first, after_second) = (halves(leaf, half) for leaf in (to_step, after_step))
        levels.append((to_second, after_first))
        first, second = (each[:, :, None] for each in halves(episode, half))
        joined = jnp.where(second == first[:, -1:], to_first[:, -1:] + to_second, to_second)
        through = jnp.where(first == second[:, -1:], after_first + to_second[:, -1:], after_first)
        to_step = jnp.concatenate((to_first, joined), axis=1).reshape(log_decay.shape)
        after_step = jnp.concatenate((through, after_second), axis=1).reshape(log_decay.shape)
    return levels, to_step, after_step


def lower_triangle(diagonal: jax.Array, blocks: list[jax.Array]) -> jax.Array:
    """The matrix of this diagonal and of the square blocks below it, smallest first; 0 above the diagonal."""
    matrix = diagonal[:, None, None]
    for block in blocks:
        matrix = join(matrix, block)
    return matrix[0]


def join(blocks: jax.Array, corners: jax.Array) -> jax.Array:
    """Blocks (2n, half, half) on a diagonal, two by two, with corners (n, half, half) below: (n, 2 half, 2 half)."""
    above = jnp.concatenate((blocks[0::2], jnp.zeros_like(corners)), axis=2)
    return jnp.concatenate((above, jnp.concatenate((corners, blocks[1::2]), axis=2)), axis=1)
