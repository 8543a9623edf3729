"""Whole episodes in a ring on device, and batches of them as tapes: Tape-Based Batching."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from memoroids.memory.memoroid import State
from memoroids.tape import Tape, empty, slots_needed


class TapeBufferState(NamedTuple):
    """The ring D and the table I of its whole episodes, both on device. Several rings have one more axis in front.

    `tape`, `capacity` slots; `head`, where the next slot goes; `start` and `length`, a ring of begin positions and
    transition counts of whole episodes, of which `live` from `first` on are live; `open_length`, the slots before the
    head that belong to an unfinished episode (-1: there is none); `added` and `refused`, episodes so far. Where
    episodes are drawn by priority: `priority` of each entry of the table, and the `largest` so far, of all rings.
    """

    tape: Tape
    head: jax.Array
    start: jax.Array
    length: jax.Array
    first: jax.Array
    live: jax.Array
    open_length: jax.Array
    added: jax.Array
    refused: jax.Array
    priority: jax.Array | None = None
    largest: jax.Array | None = None


class Drawn(NamedTuple):
    """Which episodes a batch holds: of each of D draws its `ring` and its `number` in the order of that ring, (D,).

    `draw` (N,): the draw that each slot's transition belongs to, D where there is none. With several tapes all have
    one more axis in front.
    """

    ring: jax.Array
    number: jax.Array
    draw: jax.Array


class Sample(NamedTuple):
    """A batch: the tape, and each slot's weight in the loss, (N,) float32, 0 where there is no transition.

    A batch of k tapes has leaves (k, N, …). `drawn`: which episodes these are, where their priorities are kept.
    """

    tape: Tape
    weight: jax.Array
    drawn: Drawn | None = None

    @property
    def flat(self) -> tuple[Tape, jax.Array]:
        """Tape and weight with one slot axis, in the order of `run`'s outputs."""
        if self.weight.ndim == 1:
            return self.tape, self.weight
        return jax.tree.map(_flatten, (self.tape, self.weight))

    def run(self, network: Callable[..., tuple[Any, State]], *, recompute_next_state: bool = False) -> tuple[Any, Any]:
        """One pass of `network(observation, begin)`: its outputs in each slot and in each following slot, (N, …).

        Of k tapes each has a pass of its own; outputs are (k · N, …). With `recompute_next_state` the outputs of
        following slots come from a second pass that starts each episode at its second observation, as the paper's code
        computes next states. That pass never sees o_0: it is there to measure what this changes.
        """

        def one(tape: Tape) -> tuple[Any, Any]:
            out, _ = network(tape.observation, tape.begin)
            if recompute_next_state:
                return out, network(tape.next_slot(tape.observation), tape.begin)[0]
            return out, tape.next_slot(out)

        if self.weight.ndim == 1:
            return one(self.tape)
        return jax.tree.map(_flatten, jax.vmap(one)(self.tape))


class TapeBuffer(NamedTuple):
    """A buffer's pure functions and sizes; made by `tape_buffer`."""

    capacity: int
    batch_size: int
    slots: int
    init: Callable[[Tape], TapeBufferState]
    add: Callable[[TapeBufferState, Tape], TapeBufferState]
    sample: Callable[[TapeBufferState, jax.Array], Sample]


def tape_buffer(
    capacity: int, batch_size: int, max_length: int, *, min_length: int = 1, cut: bool = False
) -> TapeBuffer:
    """A ring of whole episodes with pure, jitted functions:

        buffer = tape_buffer(capacity=100_000, batch_size=1_000, max_length=200)
        state = buffer.init(example)             # any Tape, for its trailing shapes and dtypes
        state = buffer.add(state, tape)          # state is donated: use only the one returned
        batch = buffer.sample(state, key)        # Sample(tape, weight)

    `add` appends a tape's slots (padding left out): whole episodes, several, or a piece of one that the next call goes
    on with. An episode can be sampled once its final slot is in. The oldest whole episodes give way. One whose length
    is outside `min_length` to `max_length` is refused: never sampled, counted in `state.refused`. Raises `ValueError`
    for a tape with more slots than the ring.

    `sample` draws episodes uniformly with replacement, every whole one alike, until their transitions reach
    `batch_size`, the last kept whole; divide a weighted sum by `batch_size` and every episode, and every part of one,
    has the same weight. With `cut=True` transitions past `batch_size` weigh 0, as in the paper, which favours the early
    steps of long episodes. Nothing may be sampled before the first whole episode is in (all weights are 0).

    **Arguments:** `capacity` in slots; `batch_size` B ≥ 1, transitions; `max_length` and `min_length`, transitions in
    the longest and shortest episode to come: together they fix the static `slots` of a batch. State does not depend on
    these three, so a buffer of other sizes may go on with it.

    Source: Morad et al. 2024, Section 5 and Algorithm 1.
    """
    check_sizes("tape_buffer", capacity, batch_size, max_length, min_length)
    table = capacity // 2  # the shortest whole episode takes two slots
    slots = slots_needed(batch_size, max_length, min_length)
    draws = -(-batch_size // min_length)

    def init(example: Tape) -> TapeBufferState:
        return empty_ring(capacity, table, example)

    def add(state: TapeBufferState, tape: Tape) -> TapeBufferState:
        check_fit("tape_buffer", tape.slots, capacity)
        return append(state, tape, min_length, max_length)

    def sample(state: TapeBufferState, key: jax.Array) -> Sample:
        one = jax.tree.map(lambda leaf: leaf[None], state)
        ring, rank = draw_uniformly(one.live, key, draws)
        tape, weight, _ = lay_out(one, ring, rank, batch_size, slots, cut=cut)
        return Sample(tape, weight)

    return TapeBuffer(capacity, batch_size, slots, jax.jit(init), jax.jit(add, donate_argnums=0), jax.jit(sample))


def check_sizes(name: str, capacity: int, batch_size: int, max_length: int, min_length: int) -> None:
    """Raises `ValueError` for a ring or a batch of these sizes that cannot work."""
    if batch_size < 1:
        raise ValueError(f"{name}: batch_size must be at least 1, got {batch_size}")
    if not 1 <= min_length <= max_length:
        raise ValueError(f"{name}: needs 1 <= min_length <= max_length, got {min_length} and {max_length}")
    if capacity < max_length + 1:
        raise ValueError(
            f"{name}: an episode of {max_length} transitions takes {max_length + 1} slots, "
            f"the ring has only {capacity}: raise capacity"
        )


def check_fit(name: str, slots: int, capacity: int) -> None:
    """Raises `ValueError` for a tape with more slots than the ring."""
    if slots > capacity:
        raise ValueError(f"{name}: a tape of {slots} slots does not fit into a ring of {capacity}: raise capacity")


def empty_ring(capacity: int, table: int, example: Tape) -> TapeBufferState:
    """A ring of `capacity` slots and room for `table` episodes, with the trailing shapes and dtypes of `example`."""

    # Distinct arrays: donated buffers may not alias each other.
    def zero() -> jax.Array:
        return jnp.zeros((), jnp.int32)

    return TapeBufferState(
        tape=empty(capacity, example),
        head=zero(),
        start=jnp.zeros(table, jnp.int32),
        length=jnp.zeros(table, jnp.int32),
        first=zero(),
        live=zero(),
        open_length=zero() - 1,
        added=zero(),
        refused=zero(),
    )


def append(state: TapeBufferState, tape: Tape, min_length: int, max_length: int) -> TapeBufferState:
    """One ring with a tape's slots behind its own, padding left out; see `tape_buffer`."""
    capacity, table = state.tape.slots, state.start.shape[0]
    valid = ~tape.padding
    rank = jnp.cumsum(valid.astype(jnp.int32)) - 1
    written = rank[-1] + 1

    # Write. Padding goes past the end, where a scatter drops it.
    position = jnp.where(valid, (state.head + rank) % capacity, capacity)
    ring = jax.tree.map(lambda leaf, new: leaf.at[position].set(new, mode="drop"), state.tape, tape)

    # Which slot each one's episode began in, counted from the head; negative where it was open before this call.
    none = -capacity - 2
    opened = lax.cummax(jnp.where(tape.begin & valid, rank, none))
    before = jnp.where(state.open_length >= 0, -state.open_length, none)
    opened = jnp.where(opened == none, before, opened)
    length = rank - opened
    ended = tape.final & valid & (opened != none)
    fits = (length >= min_length) & (length <= max_length)
    whole = ended & fits

    # The oldest episodes that the write ran over leave: at most one for every two slots, so look at that many.
    horizon = min(table, tape.slots // 2 + 1)
    oldest = jnp.arange(horizon)
    ahead = (state.start[(state.first + oldest) % table] - state.head) % capacity
    lost = jnp.sum((oldest < state.live) & (ahead < written), dtype=jnp.int32)
    first, live = (state.first + lost) % table, state.live - lost

    # New whole episodes enter the table, except one that this same call has run over: opened long ago, ended, and
    # followed by more than the ring had left.
    whole = whole & (opened >= written - capacity)
    entry = jnp.cumsum(whole.astype(jnp.int32)) - 1
    slot = jnp.where(whole, (first + live + entry) % table, table)
    start = state.start.at[slot].set((state.head + opened) % capacity, mode="drop")
    lengths = state.length.at[slot].set(length, mode="drop")
    entered = jnp.sum(whole, dtype=jnp.int32)

    # What stays open behind the last valid slot.
    last = jnp.maximum(jnp.max(jnp.where(valid, jnp.arange(tape.slots), -1)), 0)
    still_open = (written > 0) & tape.transition[last] & (opened[last] != none)
    open_length = jnp.where(still_open, jnp.minimum(written - opened[last], capacity + 1), -1)
    open_length = jnp.where(written > 0, open_length, state.open_length)
    return TapeBufferState(
        tape=ring,
        head=(state.head + written) % capacity,
        start=start,
        length=lengths,
        first=first,
        live=live + entered,
        open_length=open_length.astype(jnp.int32),
        added=state.added + entered,
        refused=state.refused + jnp.sum(ended & ~fits, dtype=jnp.int32),
    )


def draw_uniformly(live: jax.Array, key: jax.Array, draws: int) -> tuple[jax.Array, jax.Array]:
    """The ring and the rank among its live episodes, (draws,) int32 each, every live one of n rings alike; `live` (n,).

    Where none is live, neither means anything.
    """
    ends = jnp.cumsum(live)
    drawn = jax.random.randint(key, (draws,), 0, jnp.maximum(ends[-1], 1))
    ring = jnp.minimum(jnp.searchsorted(ends, drawn, side="right"), live.shape[0] - 1)
    return ring, drawn - (ends - live)[ring]


def lay_out(
    state: TapeBufferState, ring: jax.Array, rank: jax.Array, batch_size: int, slots: int, *, cut: bool
) -> tuple[Tape, jax.Array, jax.Array]:
    """Drawn episodes of n rings end to end until their transitions reach `batch_size`, the last kept whole.

    `ring` and `rank` (D,): of each draw, as `draw_uniformly` has them. Returns the tape of `slots` slots, their weights
    and their draws (see `Drawn`). Only what was drawn is read.
    """
    (_, capacity), (_, table) = state.tape.begin.shape, state.start.shape
    draws = ring.shape[0]
    entry = (state.first[ring] + rank) % table
    start = state.start[ring, entry]
    length = jnp.where(rank < state.live[ring], state.length[ring, entry], 0)

    # Episodes are kept until their transitions reach the batch size; the one that reaches it stays whole.
    transitions = jnp.cumsum(length)
    kept = (transitions - length < batch_size) & (length > 0)
    ends = jnp.cumsum(jnp.where(kept, length + 1, 0))
    slot = jnp.arange(slots)
    which = jnp.minimum(jnp.searchsorted(ends, slot, side="right"), draws - 1)
    used = slot < ends[-1]
    offset = slot - (ends[which] - length[which] - 1)
    position = (start[which] + offset) % capacity
    where = ring[which]

    def gather(leaf: jax.Array) -> jax.Array:
        values = leaf[where, position]
        return jnp.where(lax.broadcast_in_dim(used, values.shape, (0,)), values, jnp.zeros((), leaf.dtype))

    tape = jax.tree.map(gather, state.tape)
    tape = eqx.tree_at(lambda t: t.begin, tape, tape.begin | ~used)
    weight = tape.transition.astype(jnp.float32)
    if cut:
        weight = jnp.where(jnp.cumsum(weight) <= batch_size, weight, 0)
    return tape, weight, jnp.where(tape.transition, which, draws)


def _flatten(leaf: jax.Array) -> jax.Array:
    return leaf.reshape(-1, *leaf.shape[2:])
