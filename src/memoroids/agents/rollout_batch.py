"""A chunk of several copies' experience, as on-policy algorithms take it: tapes, and the memory states before them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memoroids.memory.memoroid import State
from memoroids.tape import Tape


class Rollout(NamedTuple):
    """One tape of each of n copies, leaves (n, slots, …), and the memory state before slot 0 was taken in, (n, …).

    A tape may begin and end inside an episode. Its last slot is no transition: where an episode goes on, it holds the
    observation that follows, which is also the next chunk's first. A begin flag in slot 0 discards the state.
    """

    tape: Tape
    state: State

    def run(self, network: Callable[..., tuple[Any, State]]) -> tuple[Any, Any]:
        """One pass of `network(observation, begin, state)`: outputs in each slot and in each following one, (n, …)."""
        out, _ = jax.vmap(network)(self.tape.observation, self.tape.begin, self.state)
        return out, jax.vmap(Tape.next_slot)(self.tape, out)


def minibatches(key: jax.Array, rows: int, count: int, epochs: int) -> jax.Array:
    """Which rows each of `count` minibatches takes, `epochs` times over: (epochs · count, rows // count) int32.

    For `take_rows`. Rows are cut into groups of `count` neighbours, and each minibatch takes one row of each group,
    drawn at random, so that an epoch uses every row once and a minibatch is spread over all devices that rows lie on.

    Raises `ValueError` where `count` does not divide `rows`.
    """
    if rows % count:
        raise ValueError(f"{rows} tapes cannot be dealt to {count} minibatches alike: copies must be a multiple of it")
    draw = jax.random.uniform(key, (epochs, rows // count, count))
    return jnp.swapaxes(jnp.argsort(draw, axis=-1), 1, 2).reshape(epochs * count, rows // count)


def take_rows(tree: Any, chosen: jax.Array) -> Any:
    """Row `chosen[i]` of the i-th of k groups of neighbouring rows, for arrays (rows, …) and `chosen` (k,): (k, …)."""

    def take(leaf: jax.Array) -> jax.Array:
        groups = leaf.reshape(chosen.shape[0], -1, *leaf.shape[1:])
        # Mapped, not indexed by an array of group numbers: so a group never leaves its device.
        return jax.vmap(lambda group, i: group[i])(groups, chosen)

    return jax.tree.map(take, tree)
