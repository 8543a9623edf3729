"""A ring buffer of whole episodes on device, sampled as tapes: Tape-Based Batching."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from memoroids.memory.memoroid import State
from memoroids.tape import Tape, empty, slots_needed


class TapeBufferState(NamedTuple):
    """The ring D and the table I of its whole episodes, both on device. Several rings have an additional leading axis.

    `tape`: the ring, `capacity` slots. `head`: the slot that is written next. `start` and `length`: the table, itself a
    ring, with the begin position and the number of transitions of each whole episode; its `live` entries from `first`
    on can be sampled. `open_length`: the number of slots before the head that belong to an unfinished episode, -1 if
    there is none. `added` and `refused`: episodes counted so far. With prioritised draws, `priority` of each entry of
    the table and the `largest` so far over all rings; otherwise None.
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
    """The episodes in a batch of D draws: `ring` (D,) and `number` (D,), which counts the episodes added to that ring.

    `draw` (N,): the draw that each slot's transition belongs to, D for slots without a transition. With several tapes
    all have an additional leading axis.
    """

    ring: jax.Array
    number: jax.Array
    draw: jax.Array


class Sample(NamedTuple):
    """A batch: the tape, and the weight of each slot in the loss, (N,) float32, 0 for slots without a transition.

    A batch of k tapes has leaves (k, N, …). `drawn`: the episodes in the batch, if it was drawn by priority, else None.
    """

    tape: Tape
    weight: jax.Array
    drawn: Drawn | None = None

    @property
    def flat(self) -> tuple[Tape, jax.Array]:
        """Tape and weight with a single slot axis, in the order of the outputs of `run`."""
        if self.weight.ndim == 1:
            return self.tape, self.weight
        return jax.tree.map(_flatten, (self.tape, self.weight))

    def run(self, network: Callable[..., tuple[Any, State]], *, recompute_next_state: bool = False) -> tuple[Any, Any]:
        """One pass of `network(observation, begin)`: its outputs in each slot and in the slot after it, both (N, …).

        Each of k tapes has its own pass; outputs are then (k · N, …). With `recompute_next_state` the outputs of the
        slots after come from a second pass that starts each episode at its second observation, as the paper's code
        computes next states. That pass never sees o_0; the option exists to measure the effect.
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
    """The pure functions of a buffer and its sizes, as made by `tape_buffer`."""

    capacity: int
    batch_size: int
    slots: int
    init: Callable[[Tape], TapeBufferState]
    add: Callable[[TapeBufferState, Tape], TapeBufferState]
    sample: Callable[[TapeBufferState, jax.Array], Sample]


def tape_buffer(
    capacity: int, batch_size: int, max_length: int, *, min_length: int = 1, cut: bool = False
) -> TapeBuffer:
    """Makes a ring of whole episodes with pure, jitted functions:

        buffer = tape_buffer(capacity=100_000, batch_size=1_000, max_length=200)
        state = buffer.init(example)             # any Tape, for its trailing shapes and dtypes
        state = buffer.add(state, tape)          # state is donated: use only the one returned
        batch = buffer.sample(state, key)        # Sample(tape, weight)

    `add` appends the slots of a tape, without its padding: one or several whole episodes, or a piece of one that the
    next call continues. An episode can be sampled once its final slot has been added. The oldest whole episodes are
    evicted first. An episode shorter than `min_length` or longer than `max_length` is refused: it is never sampled, and
    counted in `state.refused`. `add` raises `ValueError` for a tape with more slots than the ring.

    `sample` draws whole episodes uniformly with replacement until their transitions reach `batch_size`; the last one is
    kept whole. If a weighted sum is divided by `batch_size`, every episode, and every part of one, has the same weight.
    With `cut=True` transitions past `batch_size` have weight 0, as in the paper, which favours the early steps of long
    episodes. A batch drawn before the first whole episode has been added has only zero weights.

    **Arguments:** `capacity` in slots; `batch_size`, B ≥ 1 transitions; `max_length` and `min_length`, transitions in
    the longest and shortest episode to expect. These three fix the static number of `slots` of a batch. The state does
    not depend on them, so a buffer with other values can continue with it. Raises `ValueError` if the sizes cannot
    work.

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
    """Raises `ValueError` if a ring or a batch of these sizes cannot work."""
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
    """Raises `ValueError` if a tape has more slots than the ring."""
    if slots > capacity:
        raise ValueError(f"{name}: a tape of {slots} slots does not fit into a ring of {capacity}: raise capacity")


def empty_ring(capacity: int, table: int, example: Tape) -> TapeBufferState:
    """An empty ring of `capacity` slots and `table` episodes, with the trailing shapes and dtypes of `example`."""

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
    """The state of one ring after the slots of a tape, without its padding, are appended; see `tape_buffer`."""
    capacity, table = state.tape.slots, state.start.shape[0]
    valid = ~tape.padding
    rank = jnp.cumsum(valid.astype(jnp.int32)) - 1
    written = rank[-1] + 1

    # Padding is written past the end, where the scatter drops it.
    position = jnp.where(valid, (state.head + rank) % capacity, capacity)
    ring = jax.tree.map(lambda leaf, new: leaf.at[position].set(new, mode="drop"), state.tape, tape)

    # For each slot, the begin of its episode, counted from the head; negative if it began in an earlier call.
    none = -capacity - 2
    opened = lax.cummax(jnp.where(tape.begin & valid, rank, none))
    before = jnp.where(state.open_length >= 0, -state.open_length, none)
    opened = jnp.where(opened == none, before, opened)
    length = rank - opened
    ended = tape.final & valid & (opened != none)
    fits = (length >= min_length) & (length <= max_length)
    whole = ended & fits

    # The oldest episodes that this call overwrote are evicted. There is at most one for every two slots written, so
    # only that many are checked.
    horizon = min(table, tape.slots // 2 + 1)
    oldest = jnp.arange(horizon)
    ahead = (state.start[(state.first + oldest) % table] - state.head) % capacity
    lost = jnp.sum((oldest < state.live) & (ahead < written), dtype=jnp.int32)
    first, live = (state.first + lost) % table, state.live - lost

    # New whole episodes enter the table, except one that this same call has overwritten: it began in an earlier call,
    # ended in this one, and more slots followed than the ring had left.
    whole = whole & (opened >= written - capacity)
    entry = jnp.cumsum(whole.astype(jnp.int32)) - 1
    slot = jnp.where(whole, (first + live + entry) % table, table)
    start = state.start.at[slot].set((state.head + opened) % capacity, mode="drop")
    lengths = state.length.at[slot].set(length, mode="drop")
    entered = jnp.sum(whole, dtype=jnp.int32)

    # The length of the episode that is still unfinished after the last valid slot.
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
    """Draws uniformly from the live episodes of n rings: the ring, and the rank among its live episodes, both (draws,).

    `live` (n,): the number of live episodes in each ring. Both results, int32, are meaningless if there are none.
    """
    ends = jnp.cumsum(live)
    drawn = jax.random.randint(key, (draws,), 0, jnp.maximum(ends[-1], 1), jnp.int32)
    ring = jnp.minimum(jnp.searchsorted(ends, drawn, side="right"), live.shape[0] - 1)
    return ring, drawn - (ends - live)[ring]


def lay_out(
    state: TapeBufferState, ring: jax.Array, rank: jax.Array, batch_size: int, slots: int, *, cut: bool
) -> tuple[Tape, jax.Array, jax.Array]:
    """Lays drawn episodes of n rings end to end until their transitions reach `batch_size`; the last is kept whole.

    `ring` and `rank` (D,) of each draw, as given by `draw_uniformly`. Returns the tape of `slots` slots, the weight of
    each slot and its draw (see `Drawn`). Only the episodes drawn are read.
    """
    (_, capacity), (_, table) = state.tape.begin.shape, state.start.shape
    draws = ring.shape[0]
    entry = (state.first[ring] + rank) % table
    start = state.start[ring, entry]
    length = jnp.where(rank < state.live[ring], state.length[ring, entry], 0)

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
