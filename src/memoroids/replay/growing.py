"""A tape buffer for episodes of lengths not known beforehand: its static shapes grow with the lengths seen."""

from memoroids.replay.tape_buffer import TapeBuffer, TapeBufferState, tape_buffer
from memoroids.tape import Tape, pad


class GrowingTapeBuffer:
    """Holds a buffer's state, and rebuilds its functions when an episode is longer or shorter than any before.

    A few compilations, never a refused episode. `declared`: the longest episode that the environment announces, taken
    at its word until a longer one comes; `bounds`: (min_length, max_length) to start from, (0, 0) for none yet.
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

    def add(self, tape: Tape) -> bool:
        """Stores one whole episode (NumPy-backed); True where the shape of batches changed.

        Raises `ValueError` where the episode does not fit into the ring.
        """
        length = tape.slots - 1
        shortest, longest = self.bounds
        changed = self.functions is None or not shortest <= length <= longest
        if changed:
            # Powers of two, so that a new extreme is rare; what the environment declares is exact.
            declared = self._declared if self._declared and length <= self._declared else None
            above = declared or 1 << (length - 1).bit_length()
            below = length if length == declared else 1 << (length.bit_length() - 1)
            # A bound rounded up past the ring is not an episode that does not fit.
            above = max(length, min(above, self._capacity - 1))
            self.bounds = min(shortest or below, below), max(longest, above)
            self._rebuild()
        assert self.functions is not None
        if self.state is None:
            self.state = self.functions.init(tape)
        room = min(max(64, 1 << length.bit_length()), self._capacity)
        self.state = self.functions.add(self.state, pad(tape, room))
        return changed

    def like(self, example: Tape) -> TapeBufferState:
        """An empty state, for what is restored into its place. `bounds` must be set."""
        assert self.functions is not None
        return self.functions.init(example)
