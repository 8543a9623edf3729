"""Numbers for actions of several parts, one for every option of every part, and action values of either kind."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


class Branches(eqx.Module):
    """A number for every option of every part of an action, the parts end to end: `flat` (…, Σ sizes).

    Parts of one size are computed together, so that the size of a program depends on the number of different sizes and
    not on that of the parts.
    """

    flat: jax.Array
    sizes: tuple[int, ...] = eqx.field(static=True)

    def reduce(self, function: Callable[..., jax.Array], *of_parts: jax.Array) -> jax.Array:
        """One number for each part, (…, parts): `function` takes (…, k, size), the numbers of k parts, to (…, k).

        `of_parts`: (…, parts) each, from which it gets (…, k) as further arguments.
        """
        layout = _layout(self.sizes)
        of_parts = tuple(_permuted(values, layout.parts) for values in of_parts)
        found, first = [], 0
        for block in self._blocks():
            stop = first + block.shape[-2]
            found.append(function(block, *(values[..., first:stop] for values in of_parts)))
            first = stop
        return _permuted(jnp.concatenate(found, axis=-1), np.argsort(layout.parts))

    def map(self, function: Callable[[jax.Array], jax.Array]) -> "Branches":
        """Other numbers for the same options: `function` takes (…, k, size), the numbers of k parts, to the same."""
        found = [function(block) for block in self._blocks()]
        flat = jnp.concatenate([block.reshape(*block.shape[:-2], -1) for block in found], axis=-1)
        return Branches(_permuted(flat, np.argsort(_layout(self.sizes).columns)), self.sizes)

    def _blocks(self) -> list[jax.Array]:
        """For each size, smallest first, the numbers of its parts: (…, k, size)."""
        layout, blocks, first = _layout(self.sizes), [], 0
        flat = _permuted(self.flat, layout.columns)
        for size, count in layout.counts:
            stop = first + size * count
            blocks.append(flat[..., first:stop].reshape(*flat.shape[:-1], count, size))
            first = stop
        return blocks


ActionValues = jax.Array | Branches
"""Q(s, a) for every action, (…, actions); or Q_d(s, a_d) for every option a_d of each part d of an action."""


def greedy(q: ActionValues) -> jax.Array:
    """The best action: int32 (…,), or of each part (…, parts)."""
    found = q.reduce(_argmax) if isinstance(q, Branches) else _argmax(q)
    return found.astype(jnp.int32)


def best(q: ActionValues) -> jax.Array:
    """The value of the best action: (…,), or of each part (…, parts)."""
    return q.reduce(_max) if isinstance(q, Branches) else _max(q)


def taken(q: ActionValues, action: jax.Array) -> jax.Array:
    """Q(s, a) for `action` (…,): (…,); or Q_d(s, a_d) for `action` (…, parts): (…, parts)."""
    return q.reduce(_at, action) if isinstance(q, Branches) else _at(q, action)


def over_parts(q: ActionValues, values: jax.Array) -> jax.Array:
    """Values of states or actions, (…,): as they are, or the mean of those of each part, (…, parts)."""
    return jnp.mean(values, axis=-1) if isinstance(q, Branches) else values


def value_of(q: ActionValues, action: jax.Array) -> jax.Array:
    """Q(s, a), or the mean of Q_d(s, a_d) over the parts d: (…,)."""
    return over_parts(q, taken(q, action))


def _argmax(q: jax.Array) -> jax.Array:
    return jnp.argmax(q, axis=-1)


def _max(q: jax.Array) -> jax.Array:
    return jnp.max(q, axis=-1)


def _at(q: jax.Array, action: jax.Array) -> jax.Array:
    return jnp.take_along_axis(q, action[..., None], axis=-1)[..., 0]


class _Layout(NamedTuple):
    """The order of parts by size, of their options in it, and how many parts there are of each size."""

    parts: np.ndarray
    columns: np.ndarray
    counts: tuple[tuple[int, int], ...]


@lru_cache(maxsize=16)
def _layout(sizes: tuple[int, ...]) -> _Layout:
    length = np.asarray(sizes)
    parts = np.argsort(length, kind="stable")
    owner = np.repeat(np.arange(len(sizes)), length)
    found, counts = np.unique(length, return_counts=True)
    columns = np.argsort(length[owner], kind="stable")
    return _Layout(parts, columns, tuple(zip(found.tolist(), counts.tolist(), strict=True)))


def _permuted(values: jax.Array, order: np.ndarray) -> jax.Array:
    """`values` (…, n) in another order; where it is the same one, no program has to move anything."""
    if (order == np.arange(order.size)).all():
        return values
    return jnp.take(values, jnp.asarray(order), axis=-1, unique_indices=True, mode="clip")
