"""The Gated Recurrent Unit (Cho et al. 2014): a baseline whose update is not associative."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.memory.memoroid import State, check_sizes
from memoroids.memory.sequential import SequentialMemory


class GRU(SequentialMemory):
    """r, z = σ(W [o, h]); n = tanh(W_n o + r ⊙ (U_n h)); h' = (1 - z) ⊙ n + z ⊙ h; s = h'.

    The update is not associative, so steps run one after the other. State: float32 (output_size,). Parameters
    start as Equinox's do, uniformly within ±1/√output_size. Raises `ValueError` unless sizes are at least 1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    cell: eqx.nn.GRUCell

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array):
        check_sizes("GRU", input_size=input_size, output_size=output_size)
        self.input_size, self.output_size = input_size, output_size
        self.cell = eqx.nn.GRUCell(input_size, output_size, dtype=jnp.float32, key=key)

    def initial_state(self) -> State:
        """Zeros, float32 (output_size,)."""
        return jnp.zeros(self.output_size, jnp.float32)

    def project(self, x: jax.Array) -> list[jax.Array]:
        """The input's part of r, z and n, with their biases."""
        bias: Any = self.cell.bias
        return jnp.split(x @ self.cell.weight_ih.T + bias, 3)

    def update(self, inputs: list[jax.Array], state: jax.Array) -> jax.Array:
        """h', where the bias of U_n h is gated by r as well."""
        bias: Any = self.cell.bias_n
        reset, keep, new = inputs
        to_reset, to_keep, to_new = jnp.split(state @ self.cell.weight_hh.T, 3)
        reset, keep = jax.nn.sigmoid(reset + to_reset), jax.nn.sigmoid(keep + to_keep)
        new = jnp.tanh(new + reset * (to_new + bias))
        return new + keep * (state - new)

    def read(self, state: jax.Array) -> jax.Array:
        """h itself."""
        return state
