"""A recurrence on a GPU in blocks of time: their totals, the state that enters each, and then all states."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Run = Callable[..., jax.Array]
"""`run(decay, x, start, reset, totals=…, time_block=…)`: every block from its row of `start` (blocks, C), all states
(T, C), or with `totals` the last state of each block (blocks, C)."""


def in_time_blocks(
    run: Run,
    decay: jax.Array,
    x: jax.Array,
    reset: jax.Array | None,
    initial: jax.Array,
    *,
    reverse: bool,
    time_block: int,
    outer: Callable[[int], int],
    forward: Callable[..., jax.Array],
) -> jax.Array:
    """h_t = decay_t h_{t-1} + x_t, where the first term is 0 if reset[t], (T, C) in the dtype of `initial`.

    If T fits one block, x is read once and h written once; otherwise x is read twice, the first time for the final
    state of each block. A single pass would need programs that wait for each other, which Pallas does not guarantee.

    **Arguments:** as for `memoroids.linear_recurrence`, with one axis of channels; `outer(blocks)`, how many blocks
    are a block of the recurrence over blocks, which `forward(decay, x, reset, initial, time_block=…)` computes.
    """
    steps, blocks = x.shape[0], -(-x.shape[0] // time_block)
    if blocks == 1:
        return run(decay, x, initial[None], reset, totals=False, time_block=time_block)
    nothing = jnp.zeros((blocks, *initial.shape), initial.dtype)
    ends = run(decay, x, nothing, reset, totals=True, time_block=time_block)
    if decay.ndim == x.ndim:
        # The product of the decays of a block is its final state if it starts at 1 and all inputs are 0.
        products: Any = run(decay, jnp.zeros_like(x), jnp.ones_like(nothing), reset, totals=True, time_block=time_block)
    else:
        products = jnp.broadcast_to(lax.integer_pow(decay, time_block), nothing.shape)
    cut = None
    if reset is not None:
        ordered = jnp.flip(reset) if reverse else reset
        cut = jnp.pad(ordered, (0, blocks * time_block - steps)).reshape(blocks, time_block).any(axis=1)
    after = forward(products, ends, cut, initial, time_block=outer(blocks))
    start = jnp.concatenate((initial[None], after[:-1]))
    return run(decay, x, start, reset, totals=False, time_block=time_block)
