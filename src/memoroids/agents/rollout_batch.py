"""Batches of agents without replay: a rollout of tapes from several environments, and its division into minibatches."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memoroids.memory.memoroid import State
from memoroids.tape import Tape


class Rollout(NamedTuple):
    """A tape from each of n environments, leaves (n, slots, …), and the memory states before slot 0, (n, …).

    A tape may begin and end inside an episode. Its last slot holds no transition: if the episode continues, it holds
    the next observation, which is also the first of the next rollout. A begin flag in slot 0 discards the state.
    `behaviour`: the parameters that acted, where these are not the ones that are updated.
    """

    tape: Tape
    state: State
    behaviour: Any = None

    def run(self, network: Callable[..., tuple[Any, State]]) -> tuple[Any, Any]:
        """One pass of `network(observation, begin, state)`: the outputs for each slot and for its next slot, (n, …)."""
        out, _ = jax.vmap(network)(self.tape.observation, self.tape.begin, self.state)
        return out, jax.vmap(Tape.next_slot)(self.tape, out)


def check_minibatches(settings: Any, num_envs: int) -> None:
    """Raises `ValueError` if `settings.minibatches` does not divide a rollout's tapes, one per environment."""
    if num_envs % settings.minibatches:
        raise ValueError(
            f"minibatches must divide num_envs: {num_envs} environments in {settings.minibatches} minibatches "
            f"(--minibatches {math.gcd(num_envs, settings.minibatches)} does)"
        )


def minibatches(key: jax.Array, rows: int, count: int, epochs: int) -> jax.Array:
    """The rows of each minibatch, `count` in each of `epochs`: (epochs · count, rows // count) int32, for `take_rows`.

    Rows are divided into groups of `count` neighbours, and each minibatch takes one random row from each group. So an
    epoch uses every row once, and each minibatch is spread evenly over the devices that hold the rows.

    Raises `ValueError` if `count` does not divide `rows`.
    """
    if rows % count:
        raise ValueError(
            f"{rows} tapes cannot be divided into {count} equal minibatches: num_envs must be a multiple of {count}"
        )
    draw = jax.random.uniform(key, (epochs, rows // count, count), jnp.float32)
    return jnp.swapaxes(jnp.argsort(draw, axis=-1).astype(jnp.int32), 1, 2).reshape(epochs * count, rows // count)


def take_rows(tree: Any, chosen: jax.Array) -> Any:
    """Takes row `chosen[i]` of the i-th of k groups of neighbouring rows: leaves (rows, …), `chosen` (k,) → (k, …)."""

    def take(leaf: jax.Array) -> jax.Array:
        groups = leaf.reshape(chosen.shape[0], -1, *leaf.shape[1:])
        # With `vmap`, unlike with an array of group indices, the partitioner keeps each group on its device.
        return jax.vmap(lambda group, i: group[i])(groups, chosen)

    return jax.tree.map(take, tree)
