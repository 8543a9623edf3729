"""Memories that attend to the last entries of an episode: one layer, by blocks of a sequence or step by step."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.monoid import Monoid
from memoroids.algebra.window import Window, bands, counts, last_window
from memoroids.memory.memoroid import Memoroid, State


class WindowedMemory(Memoroid):
    """A memoroid of `Window`: every step adds an entry, and its Markov state is read from the last `window` entries.

    A subclass defines `entry_shape`, `entry` and `attend`. The default backend "direct" reads blocks of `window` steps
    at once, in O(T · window) time and memory, gradient included. "sequential" is the scan of the monoid, which stores a
    window for every step; the parallel scans would do so several times over. A step takes O(window) time.
    """

    backends: ClassVar[tuple[str, ...]] = ("direct", "sequential")

    window: eqx.AbstractVar[int]
    """How many steps are attended to, the present one included."""

    @property
    @abc.abstractmethod
    def entry_shape(self) -> tuple[int, ...]:
        """The shape of what is kept of a step."""

    @abc.abstractmethod
    def entry(self, x: jax.Array) -> jax.Array:
        """What is kept of one observation (input_size,): an array of `entry_shape`."""

    @abc.abstractmethod
    def attend(self, x: jax.Array, entries: jax.Array, count: jax.Array) -> jax.Array:
        """The Markov states (n, output_size) of n consecutive steps.

        **Arguments:** `x` (n, input_size); `entries` (window - 1 + n, *entry_shape), those up to the last of the steps;
        `count` (n,), how many of them, up to its own, each step may attend to.
        """

    @property
    def monoid(self) -> Monoid:
        """The last `window` entries."""
        return self._window

    @property
    def _window(self) -> Window:
        return Window(self.window, self.entry_shape)

    def lift(self, x: jax.Array, begin: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The window of one entry."""
        del begin
        return self._window.element(self.entry(x))

    def readout(self, h: tuple[jax.Array, jax.Array], x: jax.Array, begin: jax.Array) -> jax.Array:
        """`attend`, of a single step."""
        del begin
        entries, count = h
        return self.attend(x[None], entries, count[None])[0]

    def _run(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> tuple[jax.Array, State]:
        if backend not in (None, "direct"):
            return super()._run(x, begin, state, backend)
        steps = x.shape[0]
        block = min(self.window, steps)
        entries = jax.vmap(self.entry)(x).astype(jnp.float32)
        padding = -steps % block

        def in_blocks(rows: jax.Array) -> jax.Array:
            rows = jnp.pad(rows, [(0, padding)] + [(0, 0)] * (rows.ndim - 1))
            return rows.reshape(-1, block, *rows.shape[1:])

        inputs = in_blocks(x), bands(state[0], entries, block), in_blocks(counts(state[1], begin, self.window))
        s = jax.vmap(self.attend)(*inputs)
        return s.reshape(-1, self.output_size)[:steps], last_window(entries, begin, state)
