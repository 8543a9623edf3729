"""A ring of whole episodes for each copy of an environment, and batches over all of them, for compiled loops."""

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
    """The pure functions of several rings, and their sizes; made by `ring_buffer`."""

    rings: int
    capacity: int
    batch_size: int
    tapes: int
    slots: int
    init: Callable[[Tape], TapeBufferState]
    add: Callable[[TapeBufferState, Tape], TapeBufferState]
    sample: Callable[..., Sample]
    update_priorities: Callable[[TapeBufferState, Drawn | None, jax.Array], TapeBufferState]


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
    """n rings of whole episodes with pure functions, to be used inside a larger `jit`:

        buffer = ring_buffer(16, capacity=10_000, batch_size=1_000, max_length=200)
        state = buffer.init(example)             # any Tape, for its trailing shapes and dtypes
        state = buffer.add(state, pieces)        # leaves (16, N, …): ring i goes on with pieces[i]
        batch = buffer.sample(state, key)        # Sample(tape, weight, drawn)
        state = buffer.update_priorities(state, batch.drawn, td_errors)      # with `priority`; else it changes nothing

    Every ring is a `tape_buffer` of its own: what may be added, which episodes give way and which are refused is said
    there. State is that of a `tape_buffer` with an axis of rings in front. `sample` draws over all live episodes of
    all rings, so that an episode's chance does not depend on how many its ring holds; otherwise as there. Nothing here
    is jitted: donate the state, or carry it through a loop, and `add` writes in place.

    With `tapes=k` a batch is k tapes, leaves (k, slots, …), each with batch_size / k transitions or a few more, so that
    each of k devices can take one.

    With `priority` episodes are drawn in proportion to their priorities p, and each one's transitions are weighted by
    (1 / (M P))^β with P = p / Σ p over M live episodes, divided by the largest weight that any live one could have. So
    weights are at most 1, and the divisor is the same for all batches of one state: dividing by the largest of a batch
    would favour batches by what else is in them. `sample(state, key, correction)` takes another β than the
    configuration's, to anneal it. An episode enters with the largest priority so far, 1 at first. `update_priorities`
    takes the TD errors (slots,) of `batch.flat` (k · slots of k tapes); episodes that have given way since, and those
    with an error that is not finite, are left alone. Drawing sums over all tables, a pass over
    n · capacity / (min_length + 1) numbers; without priorities only what is drawn is read.

    **Arguments:** `rings` n ≥ 1; `capacity` in slots of each ring; `tapes` k ≥ 1 divides `batch_size`; the others are
    those of `tape_buffer`, but the state depends on `min_length`. Raises `ValueError` where sizes cannot work.

    Source: Morad et al. 2024, Section 5 and Algorithm 1; Schaul et al. 2016, Section 3.3 and 3.4.
    """
    check_sizes("ring_buffer", capacity, batch_size, max_length, min_length)
    if rings < 1:
        raise ValueError(f"ring_buffer: needs at least 1 ring, got {rings}")
    if tapes < 1 or batch_size % tapes:
        raise ValueError(f"ring_buffer: {tapes} tapes cannot share a batch of {batch_size} transitions evenly")
    share = batch_size // tapes
    table = capacity // (min_length + 1)
    slots = slots_needed(share, max_length, min_length)
    draws = -(-share // min_length)

    def init(example: Tape) -> TapeBufferState:
        one = empty_ring(capacity, table, example)
        state = jax.tree.map(lambda leaf: jnp.tile(leaf, (rings,) + (1,) * leaf.ndim), one)
        if priority is None:
            return state
        return state._replace(priority=jnp.zeros((rings, table)), largest=jnp.ones(()))

    def add(state: TapeBufferState, pieces: Tape) -> TapeBufferState:
        copies, width = pieces.begin.shape
        if copies != rings:
            raise ValueError(f"ring_buffer: needs a piece for each of {rings} rings, got {copies}")
        check_fit("ring_buffer", width, capacity)
        before = state._replace(priority=None, largest=None)
        after = jax.vmap(lambda ring, piece: append(ring, piece, min_length, max_length))(before, pieces)
        if priority is None:
            return after
        assert state.priority is not None and state.largest is not None
        # The newest entries of each table, at most one for every min_length + 1 slots and one begun before.
        entered = (after.added - state.added)[:, None]
        newest = jnp.arange(min(table, width // (min_length + 1) + 1))[None]
        entry = ((after.first + after.live)[:, None] - entered + newest) % table
        entry = jnp.where(newest < entered, entry, table)
        values = jax.vmap(lambda ring, at: ring.at[at].set(state.largest, mode="drop"))(state.priority, entry)
        return after._replace(priority=values, largest=state.largest)

    def sample(state: TapeBufferState, key: jax.Array, correction: jax.Array | float | None = None) -> Sample:
        if priority is None:
            one = partial(_uniform, state)
        else:
            beta = priority.correction if correction is None else correction
            values = _live_priorities(state)
            one = partial(_prioritised, state, values, sums(values.reshape(-1)), beta)
        if tapes == 1:
            return one(key)
        return jax.vmap(one)(jax.random.split(key, tapes))

    def _uniform(state: TapeBufferState, key: jax.Array) -> Sample:
        ring, rank = draw_uniformly(state.live, key, draws)
        tape, weight, _ = lay_out(state, ring, rank, share, slots, cut=cut)
        return Sample(tape, weight)

    def _prioritised(
        state: TapeBufferState, values: jax.Array, levels: list[jax.Array], beta: jax.Array | float, key: jax.Array
    ) -> Sample:
        ring, entry = jnp.divmod(draw_proportionally(levels, key, draws), table)
        rank = (entry - state.first[ring]) % table
        tape, weight, draw = lay_out(state, ring, rank, share, slots, cut=cut)
        # ((1 / (M p / S)) / (1 / (M lowest / S)))^β: number and sum of priorities cancel.
        lowest = jnp.min(jnp.where(values > 0, values, jnp.inf))
        mine = values[ring, entry]
        factor = jnp.where(mine > 0, (lowest / mine) ** beta, 0)
        weight = weight * factor.at[draw].get(mode="fill", fill_value=0)
        return Sample(tape, weight, Drawn(ring, (state.added - state.live)[ring] + rank, draw))

    def update_priorities(state: TapeBufferState, drawn: Drawn | None, td_errors: jax.Array) -> TapeBufferState:
        if td_errors.shape != (tapes * slots,):
            raise ValueError(f"ring_buffer: a batch has {tapes * slots} slots, got TD errors {td_errors.shape}")
        if priority is None:
            return state
        if drawn is None:
            raise ValueError("ring_buffer: this batch was not drawn by priority: its sample has drawn=None")
        assert state.priority is not None and state.largest is not None
        ring, number = drawn.ring.reshape(-1), drawn.number.reshape(-1)
        # One numbering for the draws of all tapes.
        draw = drawn.draw.reshape(tapes, slots)
        draw = jnp.where(draw < draws, draw + draws * jnp.arange(tapes)[:, None], tapes * draws).reshape(-1)
        value, usable = priorities(priority, td_errors, draw, tapes * draws)
        rank = number - (state.added - state.live)[ring]
        usable = usable & (rank >= 0) & (rank < state.live[ring])
        entry = jnp.where(usable, (state.first[ring] + rank) % table, table)
        # An episode drawn twice takes the larger of its two values, which hardly differ, whichever comes first.
        values = state.priority.at[ring, entry].set(0, mode="drop").at[ring, entry].max(value, mode="drop")
        return state._replace(priority=values, largest=jnp.maximum(state.largest, jnp.max(jnp.where(usable, value, 0))))

    return RingBuffer(rings, capacity, batch_size, tapes, slots, init, add, sample, update_priorities)


def _live_priorities(state: TapeBufferState) -> jax.Array:
    """The priorities of all tables (n, entries), 0 where no live episode is."""
    assert state.priority is not None
    table = state.priority.shape[1]
    age = jnp.arange(table)[None] - state.first[:, None]
    age = jnp.where(age < 0, age + table, age)
    return jnp.where(age < state.live[:, None], state.priority, 0)
