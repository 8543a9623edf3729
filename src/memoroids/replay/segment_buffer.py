"""A ring buffer of padded segments on device: Segment-Based Batching, the baseline for tapes."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from memoroids.algebra.resettable import select
from memoroids.memory.memoroid import State
from memoroids.tape import Tape

SegmentState = Literal["zero", "stored", "burn-in"]


class SegmentBufferState(NamedTuple):
    """The ring of padded segments, (rows, L + 1, …), and the memory state at the start of each when it was stored.

    `states` has leaves (rows, …), or is None if states are not stored. `head`: the row that is written next. `live`:
    the number of rows in use. `added`: the number of segments stored so far.
    """

    tape: Tape
    states: State
    head: jax.Array
    live: jax.Array
    added: jax.Array


class SegmentSample(NamedTuple):
    """A batch of segments: the tape (segments, L + 1, …) and the weight of each slot in the loss.

    `state`: the memory state at the start of each segment, leaves (segments, …). `before`: with burn-in, the preceding
    segments and whether each exists, else None.
    """

    tape: Tape
    weight: jax.Array
    state: State
    before: tuple[Tape, jax.Array] | None

    @property
    def flat(self) -> tuple[Tape, jax.Array]:
        """Tape and weight with a single slot axis, in the order of the outputs of `run`."""
        return jax.tree.map(_flatten, (self.tape, self.weight))

    def run(self, network: Callable[..., tuple[Any, State]], *, recompute_next_state: bool = False) -> tuple[Any, Any]:
        """The outputs of `network` in each slot and in the slot after it, both (segments · (L + 1), …).

        `recompute_next_state`: whether to compute the latter as the paper's code does, see `Sample.run`.
        """
        state = self.state
        if self.before is not None:
            previous, present = self.before
            _, warm = jax.vmap(network)(previous.observation[:, :-1], previous.begin[:, :-1], state)
            # Burn-in only sets the state: no gradient flows through it.
            warm = lax.stop_gradient(warm)
            state = jax.vmap(select)(present, warm, state)
        tape = self.tape
        out, _ = jax.vmap(network)(tape.observation, tape.begin, state)
        if recompute_next_state:
            observation = jax.vmap(Tape.next_slot)(tape, tape.observation)
            after, _ = jax.vmap(network)(observation, tape.begin, state)
        else:
            after = jax.vmap(Tape.next_slot)(tape, out)
        return jax.tree.map(_flatten, (out, after))


class SegmentBuffer(NamedTuple):
    """The pure functions of a buffer and its sizes, as made by `segment_buffer`."""

    rows: int
    segments: int
    init: Callable[..., SegmentBufferState]
    add: Callable[..., SegmentBufferState]
    sample: Callable[[SegmentBufferState, jax.Array], SegmentSample]


def segment_buffer(
    capacity: int, segments: int, length: int, initial_state: State, *, state: SegmentState = "zero"
) -> SegmentBuffer:
    """Makes a ring of padded segments with pure, jitted functions:

        buffer = segment_buffer(capacity=100_000, segments=100, length=10, initial_state=network.initial_state())
        ring = buffer.init(rows)                 # any tape made by split, for its trailing shapes and dtypes
        ring = buffer.add(ring, rows)            # rows without a transition are skipped; ring is donated
        batch = buffer.sample(ring, key)         # SegmentSample, `segments` rows

    `sample` draws segments uniformly with replacement, so every transition has the same weight. The oldest segments are
    evicted first. `state` is the memory state at the start of a segment: "zero", the memory's initial state; "stored",
    the state passed to `add(ring, rows, states)` (Hausknecht & Stone 2015); "burn-in", the state after the preceding
    segment, run from the initial state without a gradient (Kapturowski et al. 2019).

    **Arguments:** `capacity` in slots, padding included, of which a segment takes L; `segments` ≥ 1, the rows of a
    batch; `length`, L ≥ 1. Raises `ValueError` if the ring has no room for a segment; `add` raises it for an episode
    with more segments than the ring has rows.
    Source: Morad et al. 2024, Appendix C.
    """
    rows = capacity // length
    if rows < 1 or segments < 1:
        raise ValueError(
            f"segment_buffer: the ring and a batch need at least 1 segment, got {rows} rows and {segments} segments"
        )

    def init(example: Tape) -> SegmentBufferState:
        tape = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape[1:]), leaf.dtype), example)
        states = None
        if state == "stored":
            states = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), initial_state)
        # Distinct arrays: donated buffers may not alias each other.
        head, live, added = (jnp.zeros((), jnp.int32) for _ in range(3))
        return SegmentBufferState(tape, states, head, live, added)

    def add(ring: SegmentBufferState, new: Tape, states: State = None) -> SegmentBufferState:
        if new.begin.shape[0] > rows:
            raise ValueError(
                f"segment_buffer: an episode of {new.begin.shape[0]} segments does not fit into a ring of {rows}: "
                "raise capacity"
            )
        if ring.states is not None and states is None:
            raise ValueError("segment_buffer: with state='stored' every add needs states: add(ring, rows, states)")
        used = new.transition[:, 0]
        position = jnp.where(used, (ring.head + jnp.cumsum(used) - 1) % rows, rows)

        def write(leaf: jax.Array, values: jax.Array) -> jax.Array:
            return leaf.at[position].set(values, mode="drop")

        count = jnp.sum(used, dtype=jnp.int32)
        return SegmentBufferState(
            tape=jax.tree.map(write, ring.tape, new),
            states=None if ring.states is None else jax.tree.map(write, ring.states, states),
            head=(ring.head + count) % rows,
            live=jnp.minimum(ring.live + count, rows),
            added=ring.added + count,
        )

    def sample(ring: SegmentBufferState, key: jax.Array) -> SegmentSample:
        oldest = (ring.head - ring.live) % rows
        chosen = (oldest + jax.random.randint(key, (segments,), 0, jnp.maximum(ring.live, 1), jnp.int32)) % rows
        tape = jax.tree.map(lambda leaf: leaf[chosen], ring.tape)
        weight = (tape.transition & (ring.live > 0)).astype(jnp.float32)
        if state == "stored":
            return SegmentSample(tape, weight, jax.tree.map(lambda leaf: leaf[chosen], ring.states), None)
        start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (segments, *leaf.shape)), initial_state)
        before = None
        if state == "burn-in":
            # The segments of an episode are in adjacent rows; the one before the oldest has been overwritten.
            previous = jax.tree.map(lambda leaf: leaf[(chosen - 1) % rows], ring.tape)
            before = previous, ~tape.begin[:, 0] & (chosen != oldest)
        return SegmentSample(tape, weight, start, before)

    return SegmentBuffer(rows, segments, jax.jit(init), jax.jit(add, donate_argnums=0), jax.jit(sample))


def _flatten(leaf: jax.Array) -> jax.Array:
    return leaf.reshape(-1, *leaf.shape[2:])
