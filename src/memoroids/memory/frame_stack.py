"""The last observations side by side: a baseline that remembers for a fixed number of steps (Mnih et al. 2015)."""

from typing import ClassVar

import equinox as eqx
import jax

from memoroids.algebra.monoid import Monoid
from memoroids.algebra.scan import BACKENDS
from memoroids.algebra.window import Window, windows
from memoroids.memory.layers import Block
from memoroids.memory.memoroid import Memoroid, State, check_sizes


class FrameStack(Memoroid):
    """s_t = Block([o_{t-n+1} ‖ … ‖ o_t]), where observations before the beginning of the episode are zeros.

    The monoid is that of the last n elements, `Window`; n is `frames`. State: float32 (frames, input_size) and the
    number of frames seen, int32. The block starts as Equinox's linear layers do. Raises `ValueError` unless sizes are
    at least 1.

    The default backend "direct" reads all windows from the sequence; the backends of `scan` carry them along.
    """

    backends: ClassVar[tuple[str, ...]] = ("direct", *BACKENDS)

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    frames: int = eqx.field(static=True)
    block: Block

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array, frames: int = 4):
        check_sizes("FrameStack", input_size=input_size, output_size=output_size, frames=frames)
        self.input_size, self.output_size, self.frames = input_size, output_size, frames
        self.block = Block(frames * input_size, output_size, key=key)

    @property
    def monoid(self) -> Monoid:
        """The last `frames` observations."""
        return self._window

    @property
    def _window(self) -> Window:
        return Window(self.frames, (self.input_size,))

    def lift(self, x: jax.Array, begin: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The window of one observation."""
        del begin
        return self._window.element(x)

    def readout(self, h: tuple[jax.Array, jax.Array], x: jax.Array, begin: jax.Array) -> jax.Array:
        """The block applied to the observations in the window."""
        del x, begin
        return self.block(h[0].ravel())

    def _accumulate(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> State:
        if backend in (None, "direct"):
            return windows(x.astype(self._window.dtype), begin, state)
        return super()._accumulate(x, begin, state, backend)
