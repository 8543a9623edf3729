"""Monoids, the algebraic structure behind the memory models: an associative operator with a two-sided identity."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

Element = Any
"""A pytree of arrays without a time axis: one element of a monoid's set H."""


class Monoid(eqx.Module):
    """A monoid (H, •, e): a set H with an associative operator • and its identity e.

    Both methods act on single elements, without a time or batch axis; `memoroids.scan` and `jax.vmap` add those.
    `combine` must be associative and `identity` neutral on both sides, which `memoroids.check_monoid` checks.

        class Max(Monoid):
            size: int = eqx.field(static=True)

            def identity(self):
                return jnp.full(self.size, -jnp.inf)

            def combine(self, left, right):
                return jnp.maximum(left, right)

    Source: Morad et al. 2024, Section 4 and Definition 4.1.
    """

    @abc.abstractmethod
    def identity(self) -> Element:
        """The neutral element e, with the structure, shapes and dtypes of every other element."""

    @abc.abstractmethod
    def combine(self, left: Element, right: Element) -> Element:
        """`left` • `right`, where `left` is the earlier of the two in time."""


class _ArrayMonoid(Monoid):
    """A monoid over arrays of a fixed `shape`, an int or a tuple of ints, and `dtype`."""

    shape: tuple[int, ...] = eqx.field(static=True, converter=lambda s: (s,) if isinstance(s, int) else tuple(s))
    dtype: Any = eqx.field(static=True, default=jnp.float32, converter=jnp.dtype)


class Sum(_ArrayMonoid):
    """Addition of arrays of `shape` and `dtype`, with identity 0."""

    def identity(self) -> jax.Array:
        """Zeros."""
        return jnp.zeros(self.shape, self.dtype)

    def combine(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """`left` + `right`."""
        return left + right


class Max(_ArrayMonoid):
    """The elementwise maximum of real arrays of `shape` and `dtype`, with the lowest value of the dtype as identity."""

    def identity(self) -> jax.Array:
        """-∞ everywhere, or the smallest integer of an integer dtype."""
        lowest = -jnp.inf if jnp.issubdtype(self.dtype, jnp.floating) else jnp.iinfo(self.dtype).min
        return jnp.full(self.shape, lowest, self.dtype)

    def combine(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """max(`left`, `right`), elementwise."""
        return jnp.maximum(left, right)


class DiagonalAffine(_ArrayMonoid):
    """Affine maps h ↦ a ⊙ h + x with a diagonal matrix a, composed in the order of time.

    Elements are pairs (a, x), each of `shape` and `dtype`: (a, x) • (a', x') = (a' a, a' x + x'), e = (1, 0).
    It is the monoid of LRU, S5, FFM and, in reverse, of discounted returns (Morad et al. 2024, Appendices D and G).
    """

    def identity(self) -> tuple[jax.Array, jax.Array]:
        """(1, 0), the map h ↦ h."""
        return jnp.ones(self.shape, self.dtype), jnp.zeros(self.shape, self.dtype)

    def combine(
        self, left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """The map `left` followed by the map `right`: (a' a, a' x + x')."""
        (a, x), (a_next, x_next) = left, right
        return a_next * a, a_next * x + x_next


class DenseAffine(Monoid):
    """Affine maps h ↦ A h + x with a full matrix A, composed in the order of time.

    Elements are pairs (A, x) of shapes (n, n) and (n,), where n is `size`, and of `dtype`:
    (A, x) • (A', x') = (A' A, A' x + x'), e = (I, 0).
    """

    size: int = eqx.field(static=True)
    dtype: Any = eqx.field(static=True, default=jnp.float32, converter=jnp.dtype)

    def identity(self) -> tuple[jax.Array, jax.Array]:
        """(I, 0), the map h ↦ h."""
        return jnp.eye(self.size, dtype=self.dtype), jnp.zeros(self.size, self.dtype)

    def combine(
        self, left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """The map `left` followed by the map `right`: (A' A, A' x + x')."""
        (a, x), (a_next, x_next) = left, right
        return a_next @ a, a_next @ x + x_next


class Product(Monoid):
    """The direct product of monoids: elements are tuples with one entry per factor, combined entry by entry."""

    factors: tuple[Monoid, ...]

    def __init__(self, *factors: Monoid):
        self.factors = factors

    def identity(self) -> tuple[Element, ...]:
        """The tuple of the factors' identities."""
        return tuple(factor.identity() for factor in self.factors)

    def combine(self, left: tuple[Element, ...], right: tuple[Element, ...]) -> tuple[Element, ...]:
        """Combines the entries by their own operators. Raises `ValueError` if a tuple has not one entry per factor."""
        return tuple(f.combine(a, b) for f, a, b in zip(self.factors, left, right, strict=True))
