"""New episodes for those of many mapped environments whose episodes are over."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from memoroids.algebra.resettable import select

BLOCK = 64
"""How many environments are reset at once if few of many are."""
FEW = 4
"""Few means at most one in so many."""


def restarted(
    reset: Callable[[jax.Array], Any], keys: jax.Array, over: jax.Array, states: Any, *, axis: str | None = None
) -> Any:
    """`states`, leaves (n, …), with those of new episodes where `over`, (n,) bool, says that the last one has ended.

    `reset(key)` gives the leaves of one environment, `keys` (n,) one key for each. `axis`: the name of the mapped axis
    over runs, if there is one.

    One condition decides whether any environment is reset, since under `vmap` a condition for each would become a
    selection, and every environment would be reset at every step. Some resets, of mazes for instance, cost much more
    than a step: where few of many environments have to be reset, only these are, block by block.
    """
    count = jnp.sum(over, dtype=jnp.int32)
    if axis is not None:
        # The maximum over the mapped axis is not mapped itself, so that conditions are not turned into selections.
        count = lax.pmax(count, axis)

    def all_of_them() -> Any:
        return jax.vmap(select)(over, jax.vmap(reset)(keys), states)

    def block_by_block() -> Any:
        places = jnp.nonzero(over, size=over.size + BLOCK, fill_value=over.size)[0]

        def block(i: jax.Array, states: Any) -> Any:
            at = lax.dynamic_slice(places, (i * BLOCK,), (BLOCK,))
            fresh = jax.vmap(reset)(keys[at])
            return jax.tree.map(lambda old, new: old.at[at].set(new, mode="drop"), states, fresh)

        return lax.fori_loop(0, -(-count // BLOCK), block, states)

    if over.size <= FEW * BLOCK:
        return lax.cond(count > 0, all_of_them, lambda: states)
    return lax.switch(
        (count > 0) + (count > over.size // FEW).astype(jnp.int32), (lambda: states, block_by_block, all_of_them)
    )
