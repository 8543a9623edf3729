"""A memory model of your own: the largest value that each feature has taken since the episode began.

Check it with `python examples/new_memory.py`, train it with
`memoroids train --env RepeatFirstEasy --memory examples.new_memory:MaxMemory`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids import Memoroid, check_memory
from memoroids.algebra.monoid import Max


class MaxMemory(Memoroid):
    """h_t = max(h_{t-1}, W_in o_t), s_t = W_out [h_t, o_t]: elementwise maximum is a monoid with identity -∞."""

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    w_in: eqx.nn.Linear
    w_out: eqx.nn.Linear

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array, state_size: int = 128):
        k1, k2 = jax.random.split(key)
        self.input_size, self.output_size = input_size, output_size
        self.w_in = eqx.nn.Linear(input_size, state_size, key=k1)
        self.w_out = eqx.nn.Linear(state_size + input_size, output_size, key=k2)

    @property
    def monoid(self) -> Max:
        """(H, •, e)."""
        return Max(self.w_in.weight.shape[0])

    def lift(self, x: jax.Array, begin: jax.Array) -> jax.Array:
        """f: (o, b) → H."""
        return self.w_in(x)

    def readout(self, h: jax.Array, x: jax.Array, begin: jax.Array) -> jax.Array:
        """g: (H, (o, b)) → s."""
        return self.w_out(jnp.concatenate((h, x)))


if __name__ == "__main__":
    check_memory(MaxMemory(8, 16, key=jax.random.key(0)))
    print("MaxMemory satisfies every law")
