"""Sets of squares as bits of 32-bit words, which are small to store and quick to compare and count."""

import jax
import jax.numpy as jnp
import numpy as np


def words_for(squares: int) -> int:
    """The number of words for so many squares."""
    return -(-squares // 32)


def one(square: jax.Array, words: int) -> jax.Array:
    """The set of one square, (words,) uint32, with square i in bit i % 32 of word i // 32."""
    square = square.astype(jnp.uint32)
    return jnp.where(jnp.arange(words, dtype=jnp.uint32) == square // 32, jnp.uint32(1) << (square % 32), 0)


def holds(words: jax.Array, squares: jax.Array) -> jax.Array:
    """Whether a set holds each of the squares, bool in the shape of `squares`, int32."""
    return (words[squares // 32] >> (squares % 32).astype(jnp.uint32) & 1).astype(bool)


def count(words: jax.Array) -> jax.Array:
    """The number of squares in a set, an int32 scalar."""
    return jnp.sum(jax.lax.population_count(words)).astype(jnp.int32)


def packed(sets: np.ndarray) -> np.ndarray:
    """Sets as bools (…, squares) → (…, words) uint32."""
    squares = sets.shape[-1]
    bits = np.zeros((*sets.shape[:-1], 32 * words_for(squares)), np.uint64)
    bits[..., :squares] = sets
    return (bits.reshape(*sets.shape[:-1], -1, 32) << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32)
