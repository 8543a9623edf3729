"""Memory traces: exponential averages of the observations at several rates (Eberhard et al. 2025)."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.memory.layers import Block
from memoroids.memory.memoroid import LinearMemoroid, check_sizes


class MemoryTraces(LinearMemoroid):
    """Averages of the observations with fixed rates: z_t = λ z_{t-1} + (1 - λ) o_t for every λ; s = Block(all z_t).

    State: float32 (traces, input_size). The λ are 1 - 1/τ with τ spread geometrically from 1 step, which is the
    observation itself, to `longest` steps; the paper fixes them for each task, so the spread is our choice. They are
    not trained, as in the paper, where the traces are the input of a network: here a `Block`, whose linear layer starts
    as Equinox's do. Raises `ValueError` unless 1 <= longest, finite, and sizes are at least 1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    traces: int = eqx.field(static=True)
    longest: float = eqx.field(static=True)
    block: Block

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array, traces: int = 8, longest: float = 1_000.0):
        if not 1.0 <= longest < math.inf:
            raise ValueError(f"MemoryTraces: needs a finite longest of at least 1 step, got longest={longest}")
        check_sizes("MemoryTraces", input_size=input_size, output_size=output_size, traces=traces)
        self.input_size, self.output_size = input_size, output_size
        self.traces, self.longest = traces, float(longest)
        self.block = Block(traces * input_size, output_size, key=key)

    def _new(self) -> np.ndarray:
        """1 - λ, the weight of a new observation, (traces, input_size)."""
        weight = 1 / np.geomspace(1.0, self.longest, self.traces)
        return np.repeat(weight[:, None], self.input_size, axis=1)

    def decay(self) -> jax.Array:
        """λ, float32 (traces, input_size)."""
        return jnp.asarray(1 - self._new(), jnp.float32)

    def drive(self, x: jax.Array, begin: jax.Array) -> jax.Array:
        """(1 - λ) o."""
        del begin
        return jnp.asarray(self._new(), jnp.float32) * x.astype(jnp.float32)[None, :]

    def readout(self, h: jax.Array, x: jax.Array, begin: jax.Array) -> jax.Array:
        """The block applied to all traces."""
        del x, begin
        return self.block(h.ravel())
