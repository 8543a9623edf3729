"""Buffers for the host loop: whole episodes are added one at a time, and static shapes adapt to their lengths."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

from memoroids.memory.memoroid import State
from memoroids.replay.segment_buffer import SegmentBuffer, SegmentBufferState, SegmentState, segment_buffer
from memoroids.replay.tape_buffer import TapeBuffer, TapeBufferState, tape_buffer
from memoroids.tape import Tape, pad
from memoroids.tape.segments import split


class HostTapeBuffer:
    """A tape buffer for episodes whose lengths are not known in advance.

    It holds the buffer's state, and rebuilds its functions when an episode is longer or shorter than all before: this
    costs a few compilations, but no episode is refused. `declared`: the longest episode according to the environment,
    trusted until a longer one is added. `bounds`: the initial (min_length, max_length), (0, 0) if not known.
    """

    def __init__(
        self,
        capacity: int,
        batch_size: int,
        *,
        cut: bool = False,
        declared: int | None = None,
        bounds: tuple[int, int] = (0, 0),
    ):
        self._capacity, self._batch_size, self._cut, self._declared = capacity, batch_size, cut, declared
        self.bounds = bounds
        self.functions: TapeBuffer | None = None
        self.state: TapeBufferState | None = None
        if bounds != (0, 0):
            self._rebuild()

    def _rebuild(self) -> None:
        shortest, longest = self.bounds
        self.functions = tape_buffer(self._capacity, self._batch_size, longest, min_length=shortest, cut=self._cut)

    def add(self, tape: Tape, params: Any = None) -> bool:
        """Stores one whole episode (NumPy-backed); returns whether the shape of batches changed.

        `params` are not used: a tape starts at a begin flag and needs no memory state.

        Raises `ValueError` if the episode does not fit into the ring.
        """
        length = tape.slots - 1
        shortest, longest = self.bounds
        changed = self.functions is None or not shortest <= length <= longest
        if changed:
            # Bounds are powers of two, so that they rarely change; a declared length is used as it is.
            declared = self._declared if self._declared and length <= self._declared else None
            above = declared or 1 << (length - 1).bit_length()
            below = length if length == declared else 1 << (length.bit_length() - 1)
            # Rounding up must not refuse an episode that fits into the ring.
            above = max(length, min(above, self._capacity - 1))
            before, self.bounds = self.bounds, (min(shortest or below, below), max(longest, above))
            try:
                self._rebuild()
            except ValueError:
                self.bounds = before  # a refused episode leaves no trace
                raise
        assert self.functions is not None
        if self.state is None:
            self.state = self.functions.init(tape)
        padded_slots = min(max(64, 1 << length.bit_length()), self._capacity)
        self.state = self.functions.add(self.state, pad(tape, padded_slots))
        return changed

    def like(self, example: Tape) -> TapeBufferState:
        """An empty state with the structure, shapes and dtypes of one to be restored. `bounds` must be set."""
        assert self.functions is not None
        return self.functions.init(example)

    def restore(self, state: TapeBufferState, transitions: int) -> None:
        """Continues from a stored state; `transitions` is not used."""
        del transitions
        self.state = state


class HostSegmentBuffer:
    """A segment buffer for whole episodes, which are split when they are added.

    With `count="slots"` a batch has batch_size slots, padding included: ⌊batch_size / length⌋ segments, as in the
    paper. With "transitions" it has as many segments as contain batch_size real transitions on average over all
    episodes so far; this number is adjusted when it is off by more than 5 %, so that the functions are rebuilt only a
    few times. `states(params, rows)` gives the memory state at the start of each segment, for `state="stored"`.
    `bounds`: (segments in a batch, 0), or (0, 0) if not known.
    """

    def __init__(
        self,
        capacity: int,
        batch_size: int,
        length: int,
        initial_state: State,
        *,
        state: SegmentState = "zero",
        count: Literal["slots", "transitions"] = "slots",
        states: Callable[[Any, Tape], State] | None = None,
        bounds: tuple[int, int] = (0, 0),
    ):
        self._capacity, self._batch_size, self._length, self._initial = capacity, batch_size, length, initial_state
        self._state: SegmentState = state
        self._count, self._states = count, states
        self._stored = self._rows = 0
        self.functions: SegmentBuffer | None = None
        self.state: SegmentBufferState | None = None
        self.bounds = (0, 0)
        self._rebuild(bounds[0] or max(1, batch_size // length))

    def _rebuild(self, segments: int) -> None:
        self.bounds = segments, 0
        self.functions = segment_buffer(self._capacity, segments, self._length, self._initial, state=self._state)

    def add(self, tape: Tape, params: Any = None) -> bool:
        """Splits and stores one whole episode (NumPy-backed); returns whether the shape of batches changed.

        `params`: the current parameters, with which stored states are computed. Raises `ValueError` if the episode does
        not fit into the ring.
        """
        rows = split(tape, self._length)
        assert self.functions is not None
        fragments = rows.begin.shape[0]
        # Padded with empty rows to a power of two, so that few shapes are compiled.
        padded_slots = min(1 << (fragments - 1).bit_length(), max(self.functions.rows, fragments))
        rows = jax.tree.map(
            lambda leaf: np.pad(leaf, [(0, padded_slots - fragments)] + [(0, 0)] * (leaf.ndim - 1)), rows
        )
        if self.state is None:
            self.state = self.functions.init(rows)
        states = self._states(params, rows) if self._states is not None else None
        self.state = self.functions.add(self.state, rows, states)
        self._stored += tape.slots - 1
        self._rows += fragments
        if self._count == "slots":
            return False
        wanted = self._batch_size * self._rows / self._stored
        segments = max(1, round(wanted))
        # A small number of segments is off by more than 5 % however it is rounded.
        if segments == self.bounds[0] or abs(math.log(wanted / self.bounds[0])) < math.log(1.05):
            return False
        self._rebuild(segments)
        return True

    def like(self, example: Tape) -> SegmentBufferState:
        """An empty state with the structure, shapes and dtypes of one to be restored."""
        assert self.functions is not None
        return self.functions.init(split(example, self._length))

    def restore(self, state: SegmentBufferState, transitions: int) -> None:
        """Continues from a stored state; `transitions`: the number of transitions stored in total."""
        self.state, self._stored, self._rows = state, transitions, int(state.added)
