"""Mamba: a state space whose step size, input and output maps depend on the input (Gu and Dao 2023)."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.linear_recurrence import linear_recurrence
from memoroids.algebra.recurrence_backends import available_backends
from memoroids.algebra.resettable import select
from memoroids.memory.causal_convolution import CausalConvolution
from memoroids.memory.layers import Residual, inverse_softplus, linear
from memoroids.memory.memoroid import CheckedMemory, State, check_sizes


class Mamba(CheckedMemory):
    """One layer: (v, z) = W_in u, c = SiLU(conv(v)), y = S6(c), s = W_out (y ⊙ SiLU(z)) plus the residual.

    S6 is the selective state space: for each channel of c, h_t = exp(Δ_t A) ⊙ h_{t-1} + Δ_t c_t B_t and
    y_t = C_t·h_t + D c_t, where (δ_t, B_t, C_t) is a linear map of all channels of c_t, Δ_t = softplus(W_Δ δ_t + b_Δ),
    and A = -exp(·) < 0 is real. Multiplying B by Δ instead of A⁻¹(exp(ΔA) - 1) is the simplification of the authors'
    code. u is the normalised input, conv a `CausalConvolution`.

    State: the window of the convolution, float32 (convolution_size - 1, channels), and h, float32 (channels,
    state_size), with channels = expand output_size. As published, `expand` is 2, `state_size` (N) 16,
    `convolution_size` 4 and the size of δ output_size / 16 rounded up; A starts at -1 … -N, D at 1, softplus(b_Δ)
    log-uniformly within 0.001 and 0.1, W_Δ uniformly within ±1/√(size of δ), and the other layers as Equinox's do. The
    layer norm has no parameters here. Raises `ValueError` unless sizes are at least 1.
    """

    chunk: ClassVar[int | None] = 256

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    w_in: eqx.nn.Linear
    convolution: CausalConvolution
    w_select: eqx.nn.Linear
    w_dt: jax.Array
    b_dt: jax.Array
    a_log: jax.Array
    d: jax.Array
    w_out: eqx.nn.Linear
    surround: Residual

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        state_size: int = 16,
        expand: int = 2,
        convolution_size: int = 4,
    ):
        check_sizes(
            "Mamba",
            input_size=input_size,
            output_size=output_size,
            state_size=state_size,
            expand=expand,
            convolution_size=convolution_size,
        )

        self.input_size, self.output_size = input_size, output_size
        in_key, conv_key, select_key, w_key, b_key, out_key, surround_key = jax.random.split(key, 7)
        channels, rank = expand * output_size, -(-output_size // 16)
        self.w_in = linear(output_size, 2 * channels, in_key)
        self.convolution = CausalConvolution(channels, convolution_size, key=conv_key)
        self.w_select = linear(channels, rank + 2 * state_size, select_key)
        limit, low, high = rank**-0.5, math.log(1e-3), math.log(1e-1)
        self.w_dt = jax.random.uniform(w_key, (channels, rank), jnp.float32, minval=-limit, maxval=limit)
        self.b_dt = inverse_softplus(
            jnp.exp(jax.random.uniform(b_key, (channels,), jnp.float32, minval=low, maxval=high))
        )
        a = jnp.arange(1, state_size + 1, dtype=jnp.float32)
        self.a_log = jnp.log(jnp.broadcast_to(a, (channels, state_size)))
        self.d = jnp.ones(channels, jnp.float32)
        self.w_out = linear(channels, output_size, out_key)
        self.surround = Residual(input_size, output_size, key=surround_key)

    @property
    def backends(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The backends of `linear_recurrence` that are available here."""
        return available_backends()

    def initial_state(self) -> State:
        """Zeros, float32 (convolution_size - 1, channels) and (channels, state_size)."""
        return self.convolution.initial_state(), jnp.zeros(self.a_log.shape, jnp.float32)

    def _run(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> tuple[jax.Array, State]:
        window, h = state
        v, z = jax.vmap(self._enter)(x)
        v, window = self.convolution(v, begin, window)
        c = jax.nn.silu(v)
        decay, drive, read = jax.vmap(self._select)(c)
        h = linear_recurrence(decay, drive, reset=begin, initial=h, backend=backend)
        return jax.vmap(self._leave)(h, read, c, z, x), (window, h[-1])

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """One step of convolution and state space, from zeros if `begin`."""
        window, h = select(begin, self.initial_state(), state)
        v, z = self._enter(x)
        v, window = self.convolution.step(v, window)
        c = jax.nn.silu(v)
        decay, drive, read = self._select(c)
        h = decay * h + drive
        return self._leave(h, read, c, z, x), (window, h)

    def _enter(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        v, z = jnp.split(self.w_in(self.surround.enter(x)).astype(jnp.float32), 2)
        return v, z

    def _select(self, c: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """exp(ΔA) and Δ c B, float32 (channels, state_size), and C, float32 (state_size,)."""
        rank, size = self.w_dt.shape[1], self.a_log.shape[1]
        delta, b, read = jnp.split(self.w_select(c).astype(jnp.float32), (rank, rank + size))
        dt = jax.nn.softplus(self.w_dt @ delta + self.b_dt).astype(jnp.float32)
        decay = jnp.exp(-dt[:, None] * jnp.exp(self.a_log.astype(jnp.float32)))
        return decay, jnp.outer(dt * c.astype(jnp.float32), b), read

    def _leave(self, h: jax.Array, read: jax.Array, c: jax.Array, z: jax.Array, x: jax.Array) -> jax.Array:
        y = h @ read + self.d * c
        return self.surround.leave(self.w_out(y * jax.nn.silu(z)), x)
