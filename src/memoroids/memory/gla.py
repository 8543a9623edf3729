"""Gated Linear Attention, GLA (Yang et al. 2024)."""

import math

import equinox as eqx
import jax

from memoroids.algebra.decayed_attention import DecayedSum
from memoroids.memory.layers import TransformerBlock, linear
from memoroids.memory.matrix_memoroid import MatrixMemoroid, Projections, group_norm, in_heads
from memoroids.memory.memoroid import check_sizes


class GLA(MatrixMemoroid):
    """A GLA layer: s = y + FFN(LN(y)) with y = o + W_o(r ⊙ LN(S_tᵀ q)) and r = swish(W_r u + b_r), u = LN(o).

    S_t = diag(α) S_{t-1} + k vᵀ for every head, with q = W_q u, k = W_k u, v = W_v u and the gates
    α = σ(W_α2 W_α1 u + b_α)^(1/τ), one for every row of S. FFN is SwiGLU; the LN of Sᵀq acts on each head, and norms
    have no parameters.

    State: float32 (heads, key_size, value_size). `rank`, the rows of W_α1, and `temperature`, τ, have the published
    defaults, and keys are half as wide as values, as published. The paper gives no initialisation; linear layers start
    as Equinox's do. Raises `ValueError` unless temperature > 0 and finite, and sizes are at least 1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    w_q: eqx.nn.Linear
    w_k: eqx.nn.Linear
    w_v: eqx.nn.Linear
    w_alpha: tuple[eqx.nn.Linear, eqx.nn.Linear]
    w_r: eqx.nn.Linear
    w_o: eqx.nn.Linear
    block: TransformerBlock

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        heads: int = 4,
        key_size: int = 8,
        value_size: int = 16,
        rank: int = 16,
        temperature: float = 16.0,
        hidden_size: int = 128,
    ):
        if not 0.0 < temperature < math.inf:
            raise ValueError(f"GLA: needs a finite temperature above 0, got temperature={temperature}")
        check_sizes(
            "GLA",
            input_size=input_size,
            output_size=output_size,
            heads=heads,
            key_size=key_size,
            value_size=value_size,
            rank=rank,
            hidden_size=hidden_size,
        )
        self.input_size, self.output_size = input_size, output_size
        self.heads, self.temperature = heads, float(temperature)
        kq, kk, kv, k1, k2, kr, ko, kb = jax.random.split(key, 8)
        self.w_q, self.w_k = (linear(output_size, heads * key_size, k) for k in (kq, kk))
        self.w_v = linear(output_size, heads * value_size, kv)
        self.w_alpha = linear(output_size, rank, k1), linear(rank, heads * key_size, k2, bias=True)
        self.w_r = linear(output_size, heads * value_size, kr, bias=True)
        self.w_o = linear(heads * value_size, output_size, ko)
        self.block = TransformerBlock(input_size, output_size, hidden_size, key=kb)

    @property
    def sums(self) -> DecayedSum:
        """`DecayedSum`, with a decay for every row."""
        key_size, value_size = (w.weight.shape[0] // self.heads for w in (self.w_k, self.w_v))
        return DecayedSum((self.heads, key_size, value_size))

    def project(self, x: jax.Array) -> Projections:
        """q, k, v and log α = log σ(·) / τ."""
        u = self.block.enter(x)
        down, up = self.w_alpha
        query, key, value, gate = (
            in_heads(w, self.heads) for w in (self.w_q(u), self.w_k(u), self.w_v(u), up(down(u)))
        )
        return query, key, value, jax.nn.log_sigmoid(gate) / self.temperature

    def output(self, attended: jax.Array, x: jax.Array) -> jax.Array:
        """s = y + FFN(LN(y)), given Sᵀq."""
        gate = jax.nn.silu(self.w_r(self.block.enter(x)))
        return self.block.leave(self.w_o(gate * group_norm(attended)), x)
