"""The Gated Recurrent Unit (Cho et al. 2014): a baseline whose update is not associative."""

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.resettable import select
from memoroids.memory.memoroid import Memory, State, check_sizes


class GRU(Memory):
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

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """One update of the cell, from a zero state if `begin`; the Markov state is the new state."""
        state = self.cell(x, select(begin, self.initial_state(), state)).astype(jnp.float32)
        return state, state

    def __call__(
        self, x: jax.Array, begin: jax.Array, state: State | None = None, *, backend: str | None = None
    ) -> tuple[jax.Array, State]:
        """The states (T, output_size) after every step, and the last one, by `lax.scan`."""
        self.check_backend(backend)

        def body(state: State, inputs: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
            s, state = self.step(*inputs, state)
            return state, s

        state, s = jax.lax.scan(body, self.initial_state() if state is None else state, (x, begin))
        return s, state
