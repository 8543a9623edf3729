"""DeltaNet and Gated DeltaNet, which overwrite what a key held (Schlag et al. 2021; Yang et al. 2024, 2025)."""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.resettable import select
from memoroids.memory.causal_convolution import CausalConvolution
from memoroids.memory.layers import TransformerBlock, inverse_softplus, linear, rms_norm, unit
from memoroids.memory.matrix_memoroid import delta_rule_in_heads, in_heads, read_heads
from memoroids.memory.memoroid import CheckedMemory, State, check_sizes
from memoroids.memory.sequential import step_by_step


class _DeltaLayer(CheckedMemory):
    """A layer around S_t = α_t S_{t-1} (I - β_t k_t k_tᵀ) + β_t v_t k_tᵀ; `log_decay` and `gate` are left."""

    backends: ClassVar[tuple[str, ...]] = ("chunked", "sequential")

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    key_size: int = eqx.field(static=True)
    w_qkv: eqx.nn.Linear
    convolution: CausalConvolution
    w_beta: eqx.nn.Linear
    w_o: eqx.nn.Linear
    block: TransformerBlock

    def _build(
        self,
        input_size: int,
        output_size: int,
        heads: int,
        key_size: int,
        value_size: int,
        convolution_size: int,
        hidden_size: int,
        key: jax.Array,
    ) -> None:
        check_sizes(
            type(self).__name__,
            input_size=input_size,
            output_size=output_size,
            heads=heads,
            key_size=key_size,
            value_size=value_size,
            convolution_size=convolution_size,
            hidden_size=hidden_size,
        )
        self.input_size, self.output_size, self.heads, self.key_size = input_size, output_size, heads, key_size
        ki, kc, kw, ko, kb = jax.random.split(key, 5)
        channels = heads * (2 * key_size + value_size)
        self.w_qkv = linear(output_size, channels, ki)
        self.convolution = CausalConvolution(channels, convolution_size, bias=False, key=kc)
        self.w_beta = linear(output_size, heads, kw)
        self.w_o = linear(heads * value_size, output_size, ko)
        self.block = TransformerBlock(input_size, output_size, hidden_size, key=kb)

    @abc.abstractmethod
    def log_decay(self, u: jax.Array) -> jax.Array:
        """log α, float32 (heads,), of the layer's normalised input u (output_size,)."""

    @abc.abstractmethod
    def gate(self, u: jax.Array) -> jax.Array:
        """What the normalised reads are multiplied by, (heads · value_size,) or a number."""

    def initial_state(self) -> State:
        """Zeros, float32 (convolution_size - 1, channels) and (heads, key_size, value_size)."""
        value_size = self.w_o.weight.shape[1] // self.heads
        return self.convolution.initial_state(), jnp.zeros((self.heads, self.key_size, value_size), jnp.float32)

    def _run(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> tuple[jax.Array, State]:
        if backend == "sequential":
            return step_by_step(self, x, begin, state)
        window, sums = state
        channels, rate, log_decay = jax.vmap(self._enter)(x)
        channels, window = self.convolution(channels, begin, window)
        query, key, value = jax.vmap(self._split)(channels)
        written = rate[:, :, None] * key
        reads, sums = delta_rule_in_heads(query, written, value, key, log_decay, None, begin, sums)
        return jax.vmap(self._leave)(reads, x), (window, sums)

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """One step of the convolution and of the recurrence, from zeros if `begin`."""
        window, sums = select(begin, self.initial_state(), state)
        channels, rate, log_decay = self._enter(x)
        channels, window = self.convolution.step(channels, window)
        query, key, value = self._split(channels)
        sums = jnp.exp(log_decay)[:, None, None] * sums
        change = rate[:, None] * (value - read_heads(sums, key))
        sums = sums + key[:, :, None] * change[:, None, :]
        return self._leave(read_heads(sums, query), x), (window, sums)

    def _enter(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The convolution's input, β and log α (heads,) of one observation."""
        u = self.block.enter(x)
        return self.w_qkv(u).astype(jnp.float32), jax.nn.sigmoid(self.w_beta(u).astype(jnp.float32)), self.log_decay(u)

    def _split(self, channels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """q and k, of length 1, (heads, key_size), and v (heads, value_size) of the convolution's output."""
        wide = self.heads * self.key_size
        query, key, value = (in_heads(w, self.heads) for w in jnp.split(jax.nn.silu(channels), (wide, 2 * wide)))
        return jax.vmap(unit)(query), jax.vmap(unit)(key), value

    def _leave(self, reads: jax.Array, x: jax.Array) -> jax.Array:
        gate = self.gate(self.block.enter(x))
        return self.block.leave(self.w_o(gate * jax.vmap(rms_norm)(reads).ravel()), x)


class DeltaNet(_DeltaLayer):
    """A DeltaNet layer: s = y + FFN(LN(y)) with y = o + W_o RMSNorm(S_t q) for every head, u = LN(o).

    S_t = S_{t-1} (I - β k kᵀ) + β v kᵀ: what S holds at the key k moves towards v by the share β = σ(w_β u), so that
    writing a key again replaces its value, where sums add to it. (q, k, v) = SiLU(conv(W u)) with q and k scaled to
    length 1; conv is causal, of each channel alone, over the last `convolution_size` steps of the episode. FFN is
    SwiGLU, and norms have no parameters.

    State: float32 (convolution_size - 1, channels), the last inputs of the convolution, and (heads, key_size,
    value_size), Sᵀ; the begin flag resets both. The convolution starts uniformly within ±1/√convolution_size and linear
    layers as Equinox's do (the paper gives no initialisation). Raises `ValueError` unless sizes are at least 1.

    The default backend "chunked" is `memoroids.algebra.delta_rule`, which does not store the state of every step; the
    other is "sequential". Source: Yang et al. 2024, Parallelizing Linear Transformers with the Delta Rule.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        heads: int = 4,
        key_size: int = 16,
        value_size: int = 16,
        convolution_size: int = 4,
        hidden_size: int = 128,
    ):
        self._build(input_size, output_size, heads, key_size, value_size, convolution_size, hidden_size, key)

    def log_decay(self, u: jax.Array) -> jax.Array:
        """0: nothing decays."""
        del u
        return jnp.zeros(self.heads, jnp.float32)

    def gate(self, u: jax.Array) -> jax.Array:
        """1."""
        del u
        return jnp.ones((), jnp.float32)


class GatedDeltaNet(_DeltaLayer):
    """A Gated DeltaNet layer: `DeltaNet` whose state decays, S_t = α S_{t-1} (I - β k kᵀ) + β v kᵀ, and is gated.

    α = exp(-exp(A_log) softplus(w_α u + b_Δ)), a number of each head as in Mamba-2, and
    y = o + W_o (RMSNorm(S_t q) ⊙ SiLU(W_g u)).

    State, sizes and backends are those of `DeltaNet`; values are twice as wide as keys, as published. As in the
    authors' code, exp(A_log) starts uniform over (0, 16) and softplus(b_Δ) log-uniform between 0.001 and 0.1. Raises
    `ValueError` unless sizes are at least 1. Source: Yang et al. 2025, Equation 10.
    """

    w_a: eqx.nn.Linear
    w_g: eqx.nn.Linear
    a_log: jax.Array
    dt_bias: jax.Array

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        heads: int = 4,
        key_size: int = 16,
        value_size: int = 32,
        convolution_size: int = 4,
        hidden_size: int = 128,
    ):
        layer_key, w_key, g_key, a_key, dt_key = jax.random.split(key, 5)
        self._build(input_size, output_size, heads, key_size, value_size, convolution_size, hidden_size, layer_key)
        self.w_a, self.w_g = linear(output_size, heads, w_key), linear(output_size, heads * value_size, g_key)
        tiny = float(jnp.finfo(jnp.float32).tiny)  # the logarithm of 0 is not finite
        self.a_log = jnp.log(jax.random.uniform(a_key, (heads,), jnp.float32, minval=tiny, maxval=16.0))
        low, high = math.log(1e-3), math.log(1e-1)
        self.dt_bias = inverse_softplus(
            jnp.exp(jax.random.uniform(dt_key, (heads,), jnp.float32, minval=low, maxval=high))
        )

    def log_decay(self, u: jax.Array) -> jax.Array:
        """-exp(A_log) softplus(w_α u + b_Δ)."""
        step = jax.nn.softplus(self.w_a(u).astype(jnp.float32) + self.dt_bias.astype(jnp.float32))
        return -jnp.exp(self.a_log.astype(jnp.float32)) * step

    def gate(self, u: jax.Array) -> jax.Array:
        """SiLU(W_g u)."""
        return jax.nn.silu(self.w_g(u))
