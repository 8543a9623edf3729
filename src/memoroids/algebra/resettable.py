"""Resets for any monoid, so that one sequence can hold many episodes and nothing crosses their boundaries."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.monoid import Element, Monoid


def select(flag: jax.Array, on_true: Any, on_false: Any) -> Any:
    """`on_true` if the scalar bool `flag` is True, else `on_false`, leaf by leaf of two pytrees of the same structure.

    Resets are selections, never products with a mask: since 0 · NaN is NaN, a mask would let a NaN cross the boundary.
    """
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), on_true, on_false)


class Resettable(Monoid):
    """`monoid` with begin flags: elements are pairs (h, b), and b = True discards everything before h.

    (A, b) ∘ (A', b') = ((e if b' else A) • A', b ∨ b'), with identity (e, False); b is a scalar bool. The result is a
    monoid for every `monoid` (Morad et al. 2024, Theorem 4.2). The discarded operand is replaced by e *before* the
    operator is applied, so that neither its value nor its gradient, not even a NaN, reaches the result.

    `reverse=True` is the mirror image, for scans with `reverse=True`, which accumulate the future: b = True discards
    everything after h, (A, b) ∘ (A', b') = (A • (e if b else A'), b ∨ b').
    """

    monoid: Monoid
    reverse: bool = eqx.field(static=True, default=False)

    def identity(self) -> tuple[Element, jax.Array]:
        """(e, False)."""
        return self.monoid.identity(), jnp.zeros((), bool)

    def combine(self, left: tuple[Element, jax.Array], right: tuple[Element, jax.Array]) -> tuple[Element, jax.Array]:
        """`left` ∘ `right`: their product in `monoid`, without what the flags discard, and the disjunction of flags."""
        (h, b), (h_next, b_next) = left, right
        if self.reverse:
            h_next = select(b, self.monoid.identity(), h_next)
        else:
            h = select(b_next, self.monoid.identity(), h)
        return self.monoid.combine(h, h_next), b | b_next
