"""Mamba-2, structured state-space duality (Dao & Gu 2024)."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.resettable import select
from memoroids.memory.causal_convolution import CausalConvolution
from memoroids.memory.layers import TransformerBlock, inverse_softplus, linear, rms_norm
from memoroids.memory.matrix_memoroid import attend_in_heads, in_heads, read_heads
from memoroids.memory.memoroid import CheckedMemory, check_sizes
from memoroids.memory.sequential import step_by_step

State = tuple[jax.Array, jax.Array]

SHORTEST_STEP = 1e-4
"""The smallest initial step size, as in the authors' code."""


class Mamba2(CheckedMemory):
    """A Mamba-2 layer: s = o + W_o RMSNorm((y + D ⊙ x) ⊙ swish(z)), (z, c, Δ') = W_i LN(o), (x, B, C) = swish(conv(c)).

    S_t = exp(Δ A) S_{t-1} + Δ B xᵀ and y = S_tᵀ C for every head, with Δ = softplus(Δ' + b_Δ), A = -exp(A_log) and D
    numbers of a head, and B and C shared by all heads. conv is causal, of each channel alone, over the last
    `convolution_size` steps of the episode. Norms have no parameters.

    State: float32 (convolution_size - 1, channels), the last inputs of the convolution, and (heads, state_size,
    head_size); the begin flag resets both. A starts uniform over (1, 16), Δ log-uniform between `dt_min` and `dt_max`,
    D at 1, the convolution uniform within ±1/√convolution_size, and linear layers as Equinox's do, all as in the
    authors' code. Raises `ValueError` unless 0 < dt_min < dt_max, both finite, and sizes are at least 1.

    The convolution makes the whole update no monoid, so that there are two backends: "chunked", the default, by
    `memoroids.algebra.decayed_attention`, which does not store the state of every step, and "sequential".
    """

    backends: ClassVar[tuple[str, ...]] = ("chunked", "sequential")

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    state_size: int = eqx.field(static=True)
    w_i: eqx.nn.Linear
    convolution: CausalConvolution
    dt_bias: jax.Array
    a_log: jax.Array
    d: jax.Array
    w_o: eqx.nn.Linear
    block: TransformerBlock

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        heads: int = 4,
        head_size: int = 32,
        state_size: int = 16,
        convolution_size: int = 4,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ):
        if not 0.0 < dt_min < dt_max < math.inf:
            raise ValueError(
                f"Mamba2: the step sizes need 0 < dt_min < dt_max, both finite, got dt_min={dt_min}, dt_max={dt_max}"
            )
        check_sizes(
            "Mamba2",
            input_size=input_size,
            output_size=output_size,
            heads=heads,
            head_size=head_size,
            state_size=state_size,
            convolution_size=convolution_size,
        )
        self.input_size, self.output_size = input_size, output_size
        self.heads, self.state_size = heads, state_size
        ki, kc, kd, ka, ko, kb = jax.random.split(key, 6)
        inner = heads * head_size
        self.w_i = linear(output_size, 2 * inner + 2 * state_size + heads, ki)
        self.convolution = CausalConvolution(inner + 2 * state_size, convolution_size, key=kc)
        low, high = math.log(dt_min), math.log(dt_max)
        dt = jnp.exp(jax.random.uniform(kd, (heads,), jnp.float32, minval=low, maxval=high))
        self.dt_bias = inverse_softplus(jnp.maximum(dt, SHORTEST_STEP))
        self.a_log = jnp.log(jax.random.uniform(ka, (heads,), jnp.float32, minval=1.0, maxval=16.0))
        self.d = jnp.ones(heads, jnp.float32)
        self.w_o = linear(inner, output_size, ko)
        self.block = TransformerBlock(input_size, output_size, key=kb)

    def initial_state(self) -> State:
        """Zeros."""
        inner = self.w_o.weight.shape[1]
        sums = jnp.zeros((self.heads, self.state_size, inner // self.heads), jnp.float32)
        return self.convolution.initial_state(), sums

    def _run(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> tuple[jax.Array, State]:
        if backend == "sequential":
            return step_by_step(self, x, begin, state)
        window, sums = state
        gate, channels, delta = jax.vmap(self._enter)(x)
        channels, window = self.convolution(channels, begin, window)
        value, key, query = jax.vmap(self._split)(channels)
        log_decay = delta * self._a()[None, :]
        keys, queries = (jnp.repeat(w[:, None, :], self.heads, axis=1) for w in (key, query))
        y, sums = attend_in_heads(queries, keys * delta[:, :, None], value, log_decay[:, :, None], begin, sums)
        return jax.vmap(self._leave)(y, value, gate, x), (window, sums)

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """One step of the convolution and of the recurrence, from zeros if `begin`."""
        window, sums = select(begin, self.initial_state(), state)
        gate, channels, delta = self._enter(x)
        channels, window = self.convolution.step(channels, window)
        value, key, query = self._split(channels)
        decay = jnp.exp(delta * self._a())[:, None, None]
        sums = decay * sums + delta[:, None, None] * key[None, :, None] * value[:, None, :]
        y = read_heads(sums, jnp.broadcast_to(query, sums.shape[:2]))
        return self._leave(y, value, gate, x), (window, sums)

    def _a(self) -> jax.Array:
        return -jnp.exp(self.a_log.astype(jnp.float32))

    def _enter(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """z (heads · head_size,), the convolution's input and Δ (heads,) of one observation."""
        projected = self.w_i(self.block.enter(x)).astype(jnp.float32)
        inner = self.w_o.weight.shape[1]
        gate, channels, delta = jnp.split(projected, (inner, projected.size - self.heads))
        return gate, channels, jax.nn.softplus(delta + self.dt_bias.astype(jnp.float32))

    def _split(self, channels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x (heads, head_size), B (state_size,) and C (state_size,) of the convolution's output."""
        inner = self.w_o.weight.shape[1]
        value, key, query = jnp.split(jax.nn.silu(channels), (inner, inner + self.state_size))
        return in_heads(value, self.heads), key, query

    def _leave(self, y: jax.Array, value: jax.Array, gate: jax.Array, x: jax.Array) -> jax.Array:
        y = (y + self.d.astype(jnp.float32)[:, None] * value).ravel()
        return self.block.leave(self.w_o(rms_norm(y * jax.nn.silu(gate))), x)
