"""The simple recurrent network (Elman 1990): a baseline without gates."""

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.memory.memoroid import State, check_sizes
from memoroids.memory.sequential import SequentialMemory


class Elman(SequentialMemory):
    """h' = tanh(W o + U h + b); s = h'.

    The update is not associative, so steps run one after the other. State: float32 (output_size,). Parameters start
    uniformly within ±1/√output_size, as those of PyTorch's RNN, since the paper says only that they are small and
    random. Raises `ValueError` unless sizes are at least 1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    w: jax.Array
    u: jax.Array
    b: jax.Array

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array):
        check_sizes("Elman", input_size=input_size, output_size=output_size)
        self.input_size, self.output_size = input_size, output_size
        shapes = (output_size, input_size), (output_size, output_size), (output_size,)
        self.w, self.u, self.b = (
            jax.random.uniform(k, shape, jnp.float32, -(output_size**-0.5), output_size**-0.5)
            for k, shape in zip(jax.random.split(key, 3), shapes, strict=True)
        )

    def initial_state(self) -> State:
        """Zeros, float32 (output_size,)."""
        return jnp.zeros(self.output_size, jnp.float32)

    def project(self, x: jax.Array) -> jax.Array:
        """W o + b."""
        return x @ self.w.T + self.b

    def update(self, inputs: jax.Array, state: jax.Array) -> jax.Array:
        """tanh(W o + b + U h)."""
        return jnp.tanh(inputs + self.u @ state)

    def read(self, state: jax.Array) -> jax.Array:
        """h itself."""
        return state
