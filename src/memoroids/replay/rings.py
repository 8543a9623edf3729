"""One ring of whole episodes per environment, and batches drawn over all of them, for compiled loops."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from memoroids.replay.priorities import PriorityConfig, draw_proportionally, priorities, sums
from memoroids.replay.tape_buffer import (
    Drawn,
    Sample,
    TapeBufferState,
    append,
    check_fit,
    check_sizes,
    draw_uniformly,
    empty_ring,
    lay_out,
)
from memoroids.tape import Tape, slots_needed


class RingBuffer(NamedTuple):
    """The pure functions of several rings and their sizes, as made by `ring_buffer`."""

    rings: int
    capacity: int
    batch_size: int
    tapes: int
    slots: int
    init: Callable[[Tape], TapeBufferState]
    add: Callable[[TapeBufferState, Tape], TapeBufferState]
    sample: Callable[..., Sample]
    update_priorities: Callable[[TapeBufferState, Drawn | None, jax.Array], TapeBufferState]


class _Sizes(NamedTuple):
    """The arguments of `ring_buffer` and what follows from them; `share` and `draws` are of one tape."""

    rings: int
    capacity: int
    max_length: int
    min_length: int
    tapes: int
    share: int
    table: int
    slots: int
    draws: int
    cut: bool
    priority: PriorityConfig | None


def ring_buffer(
    rings: int,
    capacity: int,
    batch_size: int,
    max_length: int,
    *,
    min_length: int = 1,
    cut: bool = False,
    tapes: int = 1,
    priority: PriorityConfig | None = None,
) -> RingBuffer:
    """Makes n rings of whole episodes with pure functions, to be used inside a larger `jit`:

        buffer = ring_buffer(16, capacity=10_000, batch_size=1_000, max_length=200)
        state = buffer.init(example)             # any Tape, for its trailing shapes and dtypes
        state = buffer.add(state, pieces)        # leaves (16, N, …): pieces[i] is appended to ring i
        batch = buffer.sample(state, key)        # Sample(tape, weight, drawn)
        state = buffer.update_priorities(state, batch.drawn, td_errors)      # a no-op without `priority`

    Each ring follows the rules of `tape_buffer`: what may be added, which episodes are evicted and which are refused.
    The state is that of a `tape_buffer` with a leading axis of rings. `sample` draws over all live episodes of all
    rings, so the probability of an episode does not depend on how many its ring holds; otherwise it works as in
    `tape_buffer`. Nothing is jitted here: donate the state, or carry it through a loop, and `add` writes in place.

    With `tapes=k` a batch is k tapes, leaves (k, slots, …), each with batch_size / k transitions or a few more, so that
    each of k devices can take one.

    With `priority`, episodes are drawn in proportion to their priorities p. The transitions of an episode are weighted
    by (1 / (M P))^β with P = p / Σ p over the M live episodes, divided by the largest weight that any live episode
    could have. Weights are therefore at most 1, and the divisor is the same for all batches of one state: dividing by
    the largest weight in the batch would make a batch's scale depend on what else was drawn. `sample(state, key,
    correction)` overrides the configuration's β, to anneal it. A new episode gets the largest priority so far,
    initially 1. `update_priorities` takes the TD errors (slots,) of `batch.flat` (k · slots for k tapes); it skips
    episodes that have been evicted since, and those with a non-finite error. Drawing by priority sums over all tables,
    n · capacity / (min_length + 1) numbers; without priorities only what is drawn is read.

    **Arguments:** `rings`, n ≥ 1; `capacity`, the slots of each ring; `tapes`, k ≥ 1, which must divide `batch_size`;
    the others as in `tape_buffer`, except that here the state depends on `min_length`. Raises `ValueError` if the sizes
    cannot work.

    Source: Morad et al. 2024, Section 5 and Algorithm 1; Schaul et al. 2016, Sections 3.3 and 3.4.
    """
    check_sizes("ring_buffer", capacity, batch_size, max_length, min_length)
    if rings < 1:
        raise ValueError(f"ring_buffer: needs at least 1 ring, got {rings}")
    if tapes < 1 or batch_size % tapes:
        raise ValueError(f"ring_buffer: {tapes} tapes cannot share a batch of {batch_size} transitions evenly")
    share = batch_size // tapes
    sizes = _Sizes(
        rings,
        capacity,
        max_length,
        min_length,
        tapes,
        share,
        table=capacity // (min_length + 1),
        slots=slots_needed(share, max_length, min_length),
        draws=-(-share // min_length),
        cut=cut,
        priority=priority,
    )
    return RingBuffer(
        rings,
        capacity,
        batch_size,
        tapes,
        sizes.slots,
        init=partial(_init, sizes),
        add=partial(_add, sizes),
        sample=partial(_sample, sizes),
        update_priorities=partial(_update_priorities, sizes),
    )


def _init(sizes: _Sizes, example: Tape) -> TapeBufferState:
    one = empty_ring(sizes.capacity, sizes.table, example)
    state = jax.tree.map(lambda leaf: jnp.tile(leaf, (sizes.rings,) + (1,) * leaf.ndim), one)
    if sizes.priority is None:
        return state
    return state._replace(
        priority=jnp.zeros((sizes.rings, sizes.table), jnp.float32), largest=jnp.ones((), jnp.float32)
    )


def _add(sizes: _Sizes, state: TapeBufferState, pieces: Tape) -> TapeBufferState:
    given, width = pieces.begin.shape
    if given != sizes.rings:
        raise ValueError(f"ring_buffer: needs a piece for each of {sizes.rings} rings, got {given}")
    check_fit("ring_buffer", width, sizes.capacity)
    before = state._replace(priority=None, largest=None)
    after = jax.vmap(lambda ring, piece: append(ring, piece, sizes.min_length, sizes.max_length))(before, pieces)
    if sizes.priority is None:
        return after
    assert state.priority is not None and state.largest is not None
    # The newest entries of each table: at most one for every min_length + 1 slots, and one that began in an earlier
    # call.
    entered = (after.added - state.added)[:, None]
    newest = jnp.arange(min(sizes.table, width // (sizes.min_length + 1) + 1))[None]
    entry = ((after.first + after.live)[:, None] - entered + newest) % sizes.table
    entry = jnp.where(newest < entered, entry, sizes.table)
    values = jax.vmap(lambda ring, at: ring.at[at].set(state.largest, mode="drop"))(state.priority, entry)
    return after._replace(priority=values, largest=state.largest)


def _sample(
    sizes: _Sizes, state: TapeBufferState, key: jax.Array, correction: jax.Array | float | None = None
) -> Sample:
    if sizes.priority is None:
        one = partial(_uniform, sizes, state)
    else:
        beta = sizes.priority.correction if correction is None else correction
        values = _live_priorities(state)
        one = partial(_prioritised, sizes, state, values, sums(values.reshape(-1)), beta)
    if sizes.tapes == 1:
        return one(key)
    return jax.vmap(one)(jax.random.split(key, sizes.tapes))


def _uniform(sizes: _Sizes, state: TapeBufferState, key: jax.Array) -> Sample:
    ring, rank = draw_uniformly(state.live, key, sizes.draws)
    tape, weight, _ = lay_out(state, ring, rank, sizes.share, sizes.slots, cut=sizes.cut)
    return Sample(tape, weight)


def _prioritised(
    sizes: _Sizes,
    state: TapeBufferState,
    values: jax.Array,
    levels: list[jax.Array],
    beta: jax.Array | float,
    key: jax.Array,
) -> Sample:
    ring, entry = jnp.divmod(draw_proportionally(levels, key, sizes.draws), sizes.table)
    rank = (entry - state.first[ring]) % sizes.table
    tape, weight, draw = lay_out(state, ring, rank, sizes.share, sizes.slots, cut=sizes.cut)
    # ((1 / (M p / S)) / (1 / (M lowest / S)))^β: the number M and the sum S of the priorities cancel.
    lowest = jnp.min(jnp.where(values > 0, values, jnp.inf))
    mine = values[ring, entry]
    factor = jnp.where(mine > 0, (lowest / mine) ** beta, 0)
    weight = weight * factor.at[draw].get(mode="fill", fill_value=0)
    return Sample(tape, weight, Drawn(ring, (state.added - state.live)[ring] + rank, draw))


def _update_priorities(
    sizes: _Sizes, state: TapeBufferState, drawn: Drawn | None, td_errors: jax.Array
) -> TapeBufferState:
    tapes, slots, draws = sizes.tapes, sizes.slots, sizes.draws
    if td_errors.shape != (tapes * slots,):
        raise ValueError(f"ring_buffer: a batch has {tapes * slots} slots, got TD errors of shape {td_errors.shape}")
    if sizes.priority is None:
        return state
    if drawn is None:
        raise ValueError("ring_buffer: this batch was not drawn by priority: its sample has drawn=None")
    assert state.priority is not None and state.largest is not None
    ring, number = drawn.ring.reshape(-1), drawn.number.reshape(-1)
    # One numbering for the draws of all tapes.
    draw = drawn.draw.reshape(tapes, slots)
    draw = jnp.where(draw < draws, draw + draws * jnp.arange(tapes)[:, None], tapes * draws).reshape(-1)
    value, usable = priorities(sizes.priority, td_errors, draw, tapes * draws)
    rank = number - (state.added - state.live)[ring]
    usable = usable & (rank >= 0) & (rank < state.live[ring])
    entry = jnp.where(usable, (state.first[ring] + rank) % sizes.table, sizes.table)
    # An episode drawn twice takes the larger of its two values, which hardly differ, whatever the order of the writes.
    values = state.priority.at[ring, entry].set(0, mode="drop").at[ring, entry].max(value, mode="drop")
    return state._replace(priority=values, largest=jnp.maximum(state.largest, jnp.max(jnp.where(usable, value, 0))))


def _live_priorities(state: TapeBufferState) -> jax.Array:
    """The priorities of all tables, (n, entries), 0 for entries without a live episode."""
    assert state.priority is not None
    table = state.priority.shape[1]
    age = jnp.arange(table)[None] - state.first[:, None]
    age = jnp.where(age < 0, age + table, age)
    return jnp.where(age < state.live[:, None], state.priority, 0)
