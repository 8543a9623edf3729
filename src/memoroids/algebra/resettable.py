"""The reset of any monoid: one long sequence may hold many episodes, and nothing crosses a boundary."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.monoid import Element, Monoid


def select(flag: jax.Array, on_true: Any, on_false: Any) -> Any:
    """`on_true` where the scalar bool `flag` is set, else `on_false`, leaf by leaf of two like pytrees.

    A selection, never a product with a mask: 0 · NaN would carry a NaN over the boundary.
    """
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), on_true, on_false)


class Resettable(Monoid):
    """`monoid` with a begin flag: elements (h, b), where a set b discards everything before.

    (A, b) ∘ (A', b') = ((e if b' else A) • A', b ∨ b'), with identity (e, False); b is a scalar bool. It is a monoid
    for every monoid (Morad et al. 2024, Theorem 4.2). The discarded operand is selected away *before* the operator, so
    that neither its value nor its gradient, not even a NaN, reaches the result.

    With `reverse=True` the mirror image: a set b discards everything after, for scans with `reverse=True` where the
    future is the accumulated operand: (A, b) ∘ (A', b') = (A • (e if b else A'), b ∨ b').
    """

    monoid: Monoid
    reverse: bool = eqx.field(static=True, default=False)

    def identity(self) -> tuple[Element, jax.Array]:
        return self.monoid.identity(), jnp.zeros((), bool)

    def combine(self, left: tuple[Element, jax.Array], right: tuple[Element, jax.Array]) -> tuple[Element, jax.Array]:
        (h, b), (h_next, b_next) = left, right
        if self.reverse:
            h_next = select(b, self.monoid.identity(), h_next)
        else:
            h = select(b_next, self.monoid.identity(), h)
        return self.monoid.combine(h, h_next), b | b_next
