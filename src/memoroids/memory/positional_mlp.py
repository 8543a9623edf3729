"""The time within the episode beside the observation: a baseline that remembers nothing but when it is."""

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.monoid import Monoid, Sum
from memoroids.memory.layers import Block, sinusoids
from memoroids.memory.memoroid import Memoroid, check_sizes


class PositionalMLP(Memoroid):
    """s_t = Block([o_t ‖ PE(t)]), with t the number of steps since the episode began.

    PE(t) = sin(t / 10000^(2i/d)) and cos(t / 10000^(2i/d)) for i < d/2; d is `position_size`. The monoid is the
    addition of integers, and every step adds 1. State: the number of steps seen in the episode, int32, a scalar. The
    block starts as Equinox's linear layers do. Raises `ValueError` unless sizes are at least 1.

    Source: the positions, Vaswani et al. 2017, Section 3.5; as a baseline of memory, Morad et al. 2023, POPGym.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    position_size: int = eqx.field(static=True)
    block: Block

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array, position_size: int = 32):
        check_sizes("PositionalMLP", input_size=input_size, output_size=output_size, position_size=position_size)
        self.input_size, self.output_size, self.position_size = input_size, output_size, position_size
        self.block = Block(input_size + position_size, output_size, key=key)

    @property
    def monoid(self) -> Monoid:
        """Addition of integers."""
        return Sum((), jnp.int32)

    def lift(self, x: jax.Array, begin: jax.Array) -> jax.Array:
        """1, for one step."""
        del x, begin
        return jnp.ones((), jnp.int32)

    def readout(self, h: jax.Array, x: jax.Array, begin: jax.Array) -> jax.Array:
        """The block applied to the observation and the position, which is 0 at the first step."""
        del begin
        position = sinusoids(h - 1, self.position_size).astype(x.dtype)
        return self.block(jnp.concatenate((x, position)))
