"""Random integers without a loop or a table, to be mapped over many environments."""

import jax
import jax.numpy as jnp


def below(bits: jax.Array, n: jax.Array | int) -> jax.Array:
    """floor(bits · n / 2^32) for random uint32 bits: an integer in [0, n), n < 2^16, as uniform as 32 bits allow."""
    n = jnp.asarray(n).astype(jnp.uint32)
    return ((bits >> 16) * n + ((bits & 0xFFFF) * n >> 16)) >> 16


def one_of(bits: jax.Array, among: jax.Array) -> jax.Array:
    """The index of a true element, all equally likely, int32; `among` (n,) bool, n < 2^16."""
    ranks = jnp.cumsum(among, dtype=jnp.uint32)
    return jnp.sum(ranks <= below(bits, ranks[-1]), dtype=jnp.int32)
