"""sLSTM, the scalar memory of xLSTM, with exponential gates (Beck et al. 2024)."""

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.memory.memoroid import State, check_sizes
from memoroids.memory.sequential import SequentialMemory

LOWEST = float(jnp.finfo(jnp.float32).min) / 2
"""The stabiliser before the first step: below every gate, and far enough from -∞ that sums with it are finite."""


class SLSTM(SequentialMemory):
    """An LSTM with an exponential input gate, a normaliser n and a stabiliser m.

        z = tanh(z̃), o = σ(õ), with z̃, ĩ, f̃, õ = W x + R h + b (Equations 11 to 14)
        m' = max(log σ(f̃) + m, ĩ) (Equation 15)
        i = exp(ĩ - m'), f = exp(log σ(f̃) + m - m') (Equations 16, 17)
        c' = f ⊙ c + i ⊙ z, n' = f ⊙ n + i, h' = o ⊙ c' / n', s = h' (Equations 8 to 10)

    R is block-diagonal: the cells of each of `heads` heads see the h of their own head only (one by default,
    where the paper's models have four). Of the two forget gates of the paper this is the sigmoid. It is the cell
    alone, without the convolution, the group norm and the projections of an xLSTM block. Since m starts below every
    gate, the larger of i and f is 1 from the first step on, and n ≥ 1.

    The update is not associative, so steps run one after the other. State: h, c, n and m, float32 (output_size,) each.
    The paper gives no initial values: W and R start uniformly within ±1/√output_size, the biases of the forget gate
    are spread evenly from 3 to 6 within each head, and the others are 0 (the choice is ours). Raises `ValueError`
    unless sizes are at least 1 and `heads` divides `output_size`.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    w: jax.Array
    r: jax.Array
    b: jax.Array

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array, heads: int = 1):
        check_sizes("SLSTM", input_size=input_size, output_size=output_size, heads=heads)
        if output_size % heads:
            raise ValueError(f"SLSTM: heads must divide output_size, got heads={heads!r}, output_size={output_size!r}")
        self.input_size, self.output_size = input_size, output_size
        size, limit = output_size // heads, output_size**-0.5
        w_key, r_key = jax.random.split(key)
        self.w = jax.random.uniform(w_key, (4 * output_size, input_size), jnp.float32, -limit, limit)
        self.r = jax.random.uniform(r_key, (heads, 4 * size, size), jnp.float32, -limit, limit)
        forget = jnp.tile(jnp.linspace(3.0, 6.0, size, dtype=jnp.float32), heads)
        self.b = jnp.zeros((4, output_size), jnp.float32).at[2].set(forget).ravel()

    def initial_state(self) -> State:
        """h, c and n are 0, m is the lowest number; float32 (output_size,) each."""
        zeros = jnp.zeros(self.output_size, jnp.float32)
        return zeros, zeros, zeros, jnp.full(self.output_size, LOWEST, jnp.float32)

    def project(self, x: jax.Array) -> list[jax.Array]:
        """W x + b, the input's part of z̃, ĩ, f̃ and õ."""
        return jnp.split(x @ self.w.T + self.b, 4)

    def update(self, inputs: list[jax.Array], state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """h', c', n' and m'."""
        h, c, n, m = state
        z, i, f, o = (a + b for a, b in zip(inputs, self._recur(h), strict=True))
        kept = jax.nn.log_sigmoid(f) + m
        stabiliser = jnp.maximum(kept, i)
        enter, keep = jnp.exp(i - stabiliser), jnp.exp(kept - stabiliser)
        c, n = keep * c + enter * jnp.tanh(z), keep * n + enter
        return jax.nn.sigmoid(o) * c / n, c, n, stabiliser

    def read(self, state: tuple[jax.Array, ...]) -> jax.Array:
        """h."""
        return state[0]

    def _recur(self, h: jax.Array) -> list[jax.Array]:
        """R h, the state's part of the four pre-activations."""
        heads, _, size = self.r.shape
        products = jnp.einsum("hij,hj->hi", self.r, h.reshape(heads, size))
        return [part.ravel() for part in jnp.split(products, 4, axis=1)]
