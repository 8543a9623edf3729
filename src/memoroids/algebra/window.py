"""The last entries of a sequence, as a monoid, and all its running products without a scan."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from memoroids.algebra.monoid import Monoid


class Window(Monoid):
    """The last `size` entries of a sequence of arrays of `shape` and `dtype`.

    Elements are pairs (X, n) of the entries (size, *shape), the newest last, and their number, int32: the last n rows
    of X are entries, the others 0. H is the set of such pairs with 0 ≤ n ≤ size.
    (X, n) • (X', n') = (the last `size` rows of the entries of X followed by those of X', min(n + n', size)),
    e = (0, 0). It is associative, since an entry stays exactly if fewer than `size` follow it.
    """

    size: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    dtype: Any = eqx.field(static=True, default=jnp.float32, converter=jnp.dtype)

    def identity(self) -> tuple[jax.Array, jax.Array]:
        """No entries."""
        return jnp.zeros((self.size, *self.shape), self.dtype), jnp.zeros((), jnp.int32)

    def element(self, entry: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The window of a single entry."""
        empty, _ = self.identity()
        return empty.at[-1].set(entry.astype(self.dtype)), jnp.ones((), jnp.int32)

    def combine(
        self, left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """The entries of `right`, and before them those of `left` for which there is room."""
        (entries, count), (entries_next, count_next) = left, right
        moved = lax.dynamic_slice_in_dim(jnp.concatenate((entries, jnp.zeros_like(entries))), count_next, self.size)
        return keep(moved, entries_next, count_next), jnp.minimum(count + count_next, self.size)


def keep(others: jax.Array, entries: jax.Array, count: jax.Array) -> jax.Array:
    """The last `count` rows of `entries`, and the rows of `others` before them."""
    rows = entries.shape[0]
    own = jnp.arange(rows, dtype=jnp.int32) >= rows - count
    return jnp.where(own.reshape(rows, *[1] * (entries.ndim - 1)), entries, others)


def steps_before(begin: jax.Array, count: jax.Array) -> jax.Array:
    """How many steps of its episode precede each step, (T,), in the dtype of `count`, the number before the first."""
    steps = jnp.arange(begin.shape[0], dtype=count.dtype)
    first = lax.cummax(jnp.where(begin, steps, -1))
    return jnp.where(first < 0, count + steps, steps - first)


def counts(count: jax.Array, begin: jax.Array, size: int) -> jax.Array:
    """How many entries the window at each step holds, int32 (T,), where `count` is their number before the first."""
    return jnp.minimum(steps_before(begin, count) + 1, size)


def windows(entries: jax.Array, begin: jax.Array, initial: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The window at every step, (T, size, *shape) and (T,): what `scan` of the resettable monoid gives.

    **Arguments:** `entries` (T, *shape), one for each step; `begin` (T,) bool; `initial`, the window before them.
    """
    before, count = initial
    size, steps = before.shape[0], entries.shape[0]
    joined = jnp.concatenate((before, entries))
    rows = jnp.stack([joined[i + 1 : i + 1 + steps] for i in range(size)], axis=1)
    held = counts(count, begin, size)
    return jax.vmap(keep)(jnp.zeros_like(rows), rows, held), held


def last_window(
    entries: jax.Array, begin: jax.Array, initial: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """The window after the last step; arguments as for `windows`."""
    before, count = initial
    size = before.shape[0]
    rows, held = jnp.concatenate((before, entries))[-size:], counts(count, begin, size)[-1]
    return keep(jnp.zeros_like(rows), rows, held), held


def bands(before: jax.Array, entries: jax.Array, block: int) -> jax.Array:
    """The entries that the windows of `block` consecutive steps hold: (blocks, size - 1 + block, *shape).

    **Arguments:** `before` (size, *shape), the window before the first step; `entries` (T, *shape). The last block is
    padded with zeros, and `block` is T or the size of the window.
    """
    size, steps = before.shape[0], entries.shape[0]
    blocks = -(-steps // block)
    padding = [(0, blocks * block - steps)] + [(0, 0)] * (entries.ndim - 1)
    joined = jnp.concatenate((before, jnp.pad(entries, padding)))
    if blocks == 1:
        return joined[None, 1:]
    parts = joined.reshape(blocks + 1, size, *entries.shape[1:])
    return jnp.concatenate((parts[:-1, 1:], parts[1:]), axis=1)
