"""The Gated Transformer-XL (Parisotto et al. 2020; relative positions, Dai et al. 2019)."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.band_attention import band_attention, by_distance
from memoroids.memory.layers import Residual, layer_norm, linear, sinusoids
from memoroids.memory.memoroid import check_sizes
from memoroids.memory.windowed import WindowedMemory

GATE_BIAS = 2.0
"""The initial b_g, with which a gate lets nearly all of the residual through (Parisotto et al. 2020, Section 3.2)."""


class GRUGate(eqx.Module):
    """r = σ(W_r y + U_r x), z = σ(W_z y + U_z x - b_g), ĥ = tanh(W_g y + U_g (r ⊙ x)); g(x, y) = (1 - z) ⊙ x + z ⊙ ĥ.

    The matrices start as Equinox's linear layers do and b_g at 2. Source: Parisotto et al. 2020, Section 3.2.
    """

    w: jax.Array
    u: jax.Array
    bias: jax.Array

    def __init__(self, size: int, *, key: jax.Array):
        self.w, self.u = (
            jax.random.uniform(k, (3, size, size), jnp.float32, -(size**-0.5), size**-0.5)
            for k in jax.random.split(key)
        )
        self.bias = jnp.full(size, GATE_BIAS, jnp.float32)

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """The residual x (size,), gated with y (size,)."""
        (w_r, w_z, w_g), (u_r, u_z, u_g) = self.w, self.u
        r = jax.nn.sigmoid(w_r @ y + u_r @ x)
        z = jax.nn.sigmoid(w_z @ y + u_z @ x - self.bias)
        h = jnp.tanh(w_g @ y + u_g @ (r * x))
        return (1 - z) * x + z * h


class GTrXL(WindowedMemory):
    """One layer: attention to the hidden states of the last `window` steps, and an MLP, each behind a GRU gate.

        e = o, or P o if the widths differ; q, k, v = W LN(e), split into heads
        score_tj = ((q_t + u) · k_j + (q_t + v) · W_R R_{t-j}) / √d, over t - window < j ≤ t (Dai et al. 2019)
        y = g_1(e, ReLU(W_a Σ_j softmax_j(score_tj) v_j)); s = g_2(y, ReLU(W_2 ReLU(W_1 LN(y) + b_1) + b_2))

    R_k is the sinusoidal code of the distance k, `GRUGate` the gate, and norms come first in both branches (identity
    map reordering). LN has no parameters, as elsewhere in this package; d is `head_size`. In a stack of n layers, the
    paper's 12, a step depends on the last n (window - 1) + 1 steps.

    The monoid is that of the last elements, `Window`. State: the hidden states e, float32 (window, output_size), which
    the paper calls memory, and their number, int32. The paper passes no gradient into the memory of an earlier segment.
    Here gradients flow through all hidden states of a call and into the state that it is given, so that a sequence in
    chunks has the gradients of the whole; `jax.lax.stop_gradient` on the state gives what is published.

    The linear layers start as Equinox's do; u and v start at 0 (the paper gives no initial values). Raises `ValueError`
    unless sizes are at least 1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    window: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    surround: Residual
    w_q: eqx.nn.Linear
    w_kv: eqx.nn.Linear
    w_r: eqx.nn.Linear
    w_a: eqx.nn.Linear
    w_1: eqx.nn.Linear
    w_2: eqx.nn.Linear
    u: jax.Array
    v: jax.Array
    gates: tuple[GRUGate, GRUGate]

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        window: int = 64,
        heads: int = 4,
        head_size: int = 16,
        hidden_size: int = 64,
    ):
        sizes = {"window": window, "heads": heads, "head_size": head_size, "hidden_size": hidden_size}
        check_sizes("GTrXL", input_size=input_size, output_size=output_size, **sizes)
        self.input_size, self.output_size, self.window, self.heads = input_size, output_size, window, heads
        *keys, surround_key = jax.random.split(key, 9)
        wide = heads * head_size
        self.surround = Residual(input_size, output_size, key=surround_key)
        self.w_q, self.w_kv = linear(output_size, wide, keys[0]), linear(output_size, 2 * wide, keys[1])
        self.w_r, self.w_a = linear(output_size, wide, keys[2]), linear(wide, output_size, keys[3])
        self.w_1 = linear(output_size, hidden_size, keys[4], bias=True)
        self.w_2 = linear(hidden_size, output_size, keys[5], bias=True)
        self.u, self.v = (jnp.zeros((heads, head_size), jnp.float32) for _ in range(2))
        self.gates = GRUGate(output_size, key=keys[6]), GRUGate(output_size, key=keys[7])

    @property
    def entry_shape(self) -> tuple[int, ...]:
        """(output_size,): a hidden state."""
        return (self.output_size,)

    def entry(self, x: jax.Array) -> jax.Array:
        """The hidden state e, the layer's input."""
        return self.surround.shortcut(x)

    def attend(self, x: jax.Array, entries: jax.Array, count: jax.Array) -> jax.Array:
        """The layer's outputs for consecutive steps."""
        steps = x.shape[0]
        hidden = jax.vmap(self.entry)(x)
        normed = jax.vmap(layer_norm)(entries)
        query = self._heads(self.w_q, jax.vmap(layer_norm)(hidden))
        key, value = jnp.split(self._heads(self.w_kv, normed), 2, axis=-1)
        distance = jnp.arange(self.window, dtype=jnp.int32)
        relative = self._heads(self.w_r, jax.vmap(lambda k: sinusoids(k, self.output_size))(distance))
        by_step = jnp.einsum("nhd,khd->hnk", query + self.v[None], relative, precision=jax.lax.Precision.HIGHEST)
        bias = by_distance(by_step / math.sqrt(query.shape[-1]))
        attended = band_attention(query + self.u[None], key, value, count, bias)
        return jax.vmap(self._output)(hidden, attended.reshape(steps, -1))

    def _heads(self, linear: eqx.nn.Linear, rows: jax.Array) -> jax.Array:
        return jax.vmap(linear)(rows).astype(jnp.float32).reshape(rows.shape[0], self.heads, -1)

    def _output(self, hidden: jax.Array, attended: jax.Array) -> jax.Array:
        after_attention, after_mlp = self.gates
        y = after_attention(hidden, jax.nn.relu(self.w_a(attended)))
        return after_mlp(y, jax.nn.relu(self.w_2(jax.nn.relu(self.w_1(layer_norm(y))))))
