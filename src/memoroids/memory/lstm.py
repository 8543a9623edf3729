"""Long Short-Term Memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000): a baseline that is not associative."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.memory.memoroid import State, check_sizes
from memoroids.memory.sequential import SequentialMemory


class LSTM(SequentialMemory):
    """i, f, o = σ(W [x, h] + b); g = tanh(W_g [x, h] + b_g); c' = f ⊙ c + i ⊙ g; h' = o ⊙ tanh(c'); s = h'.

    The form with a forget gate and without peepholes. The update is not associative, so steps run one after the other.
    State: h and c, float32 (output_size,) each. Weights and biases start as Equinox's do, uniformly within
    ±1/√output_size, and 1 is added to the biases of the forget gate, as Jozefowicz et al. 2015 advise. Raises
    `ValueError` unless sizes are at least 1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    cell: eqx.nn.LSTMCell

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array):
        check_sizes("LSTM", input_size=input_size, output_size=output_size)
        self.input_size, self.output_size = input_size, output_size
        cell = eqx.nn.LSTMCell(input_size, output_size, dtype=jnp.float32, key=key)
        forget = slice(output_size, 2 * output_size)
        self.cell = eqx.tree_at(lambda c: c.bias, cell, replace_fn=lambda bias: bias.at[forget].add(1.0))

    def initial_state(self) -> State:
        """Zeros: h and c, float32 (output_size,) each."""
        return jnp.zeros(self.output_size, jnp.float32), jnp.zeros(self.output_size, jnp.float32)

    def project(self, x: jax.Array) -> list[jax.Array]:
        """The input's part of i, f, g and o, with their biases."""
        bias: Any = self.cell.bias
        return jnp.split(x @ self.cell.weight_ih.T + bias, 4)

    def update(self, inputs: list[jax.Array], state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """h' and c'."""
        h, c = state
        recurrent = jnp.split(h @ self.cell.weight_hh.T, 4)
        i, f, g, o = (a + b for a, b in zip(inputs, recurrent, strict=True))
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    def read(self, state: tuple[jax.Array, jax.Array]) -> jax.Array:
        """h."""
        return state[0]
