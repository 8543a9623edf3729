"""A model without memory: the baseline that shows how much a task depends on memory."""

import equinox as eqx
import jax

from memoroids.algebra.recurrence_backends import BACKENDS
from memoroids.memory.layers import Block
from memoroids.memory.memoroid import Memory, State, check_sizes


class MLP(Memory):
    """One `Block` applied to the current observation; it ignores begin flags, and its state is the empty tuple.

    Raises `ValueError` unless sizes are at least 1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    block: Block
    backends = BACKENDS

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array):
        check_sizes("MLP", input_size=input_size, output_size=output_size)
        self.input_size, self.output_size = input_size, output_size
        self.block = Block(input_size, output_size, key=key)

    def initial_state(self) -> State:
        """The empty tuple."""
        return ()

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """The block applied to x, and the state unchanged."""
        del begin
        return self.block(x), state

    def __call__(
        self, x: jax.Array, begin: jax.Array, state: State | None = None, *, backend: str | None = None
    ) -> tuple[jax.Array, State]:
        """The block applied to every x_t, (T, output_size), and the state unchanged."""
        del begin
        self.check_backend(backend)
        return jax.vmap(self.block)(x), () if state is None else state
