"""Drawing without a loop or a table, for many copies at once."""

import jax
import jax.numpy as jnp


def below(bits: jax.Array, n: jax.Array | int) -> jax.Array:
    """floor(bits n / 2^32) of uint32 bits: a whole number below n < 2^16, each as likely as 32 bits can make it."""
    n = jnp.asarray(n).astype(jnp.uint32)
    return ((bits >> 16) * n + ((bits & 0xFFFF) * n >> 16)) >> 16
