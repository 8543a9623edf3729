"""The Hierarchically Gated Recurrent Network with state expansion, HGRN2 (Qin et al. 2024)."""

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.decayed_attention import DecayedSum
from memoroids.memory.hgrn import BoundedStack
from memoroids.memory.layers import TransformerBlock, layer_norm, linear
from memoroids.memory.matrix_memoroid import MatrixMemoroid, Projections, in_heads
from memoroids.memory.memoroid import Stack, check_sizes


class HGRN2Layer(MatrixMemoroid):
    """A layer of `HGRN2`: s = y + GLU(LN(y)) with y = o + W_o LN(S_tᵀ q), u = LN(o).

    S_t = diag(f) S_{t-1} + (1 - f) iᵀ for every head, with the forget gate f = γ + (1 - γ) ⊙ σ(W_f u), the input
    i = swish(W_i u) and the output gate q = σ(W_q u). γ (heads · key_size,) is the lower bound, None for 0.

    State: float32 (heads, key_size, value_size).
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    w_f: eqx.nn.Linear
    w_i: eqx.nn.Linear
    w_q: eqx.nn.Linear
    w_o: eqx.nn.Linear
    block: TransformerBlock
    lower_bound: jax.Array | None

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        heads: int,
        key_size: int,
        value_size: int,
        hidden_size: int,
    ):
        self.input_size, self.output_size, self.heads = input_size, output_size, heads
        kf, ki, kq, ko, kb = jax.random.split(key, 5)
        self.w_f, self.w_q = (linear(output_size, heads * key_size, k, bias=True) for k in (kf, kq))
        self.w_i = linear(output_size, heads * value_size, ki, bias=True)
        self.w_o = linear(heads * value_size, output_size, ko, bias=True)
        self.block = TransformerBlock(input_size, output_size, hidden_size, key=kb)
        self.lower_bound = None

    @property
    def sums(self) -> DecayedSum:
        """`DecayedSum`, with a decay for every row."""
        key_size, value_size = (w.weight.shape[0] // self.heads for w in (self.w_f, self.w_i))
        return DecayedSum((self.heads, key_size, value_size))

    def project(self, x: jax.Array) -> Projections:
        """q, 1 - f, i and log f."""
        u = self.block.enter(x)
        forget, value, query = (in_heads(w(u), self.heads) for w in (self.w_f, self.w_i, self.w_q))
        # 1 - f = (1 - γ) σ(-·), which is accurate where f is near 1, and below 1 where γ is above 0.
        key, log_forget = jax.nn.sigmoid(-forget), jax.nn.log_sigmoid(forget)
        if self.lower_bound is not None:
            key = (1 - in_heads(self.lower_bound, self.heads)) * key
            log_forget = jnp.log1p(-key)
        return jax.nn.sigmoid(query), key, jax.nn.silu(value), log_forget

    def output(self, attended: jax.Array, x: jax.Array) -> jax.Array:
        """s = y + GLU(LN(y)), given Sᵀq."""
        return self.block.leave(self.w_o(layer_norm(attended.ravel())), x)


class HGRN2(BoundedStack):
    """Layers of HGRN2 whose forget gates have lower bounds that grow from layer to layer.

    Each layer is an `HGRN2Layer`, and the bounds are those of `BoundedStack`.

    State: the tuple of the layers' states, float32 (heads, key_size, value_size) each. The paper gives no
    initialisation; linear layers start as Equinox's do. Raises `ValueError` unless sizes are at least 1.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        layers: int = 2,
        heads: int = 4,
        key_size: int = 16,
        value_size: int = 16,
        hidden_size: int = 128,
    ):
        sizes = {"heads": heads, "key_size": key_size, "value_size": value_size, "hidden_size": hidden_size}
        check_sizes("HGRN2", input_size=input_size, output_size=output_size, layers=layers, **sizes)
        stack = Stack.of(HGRN2Layer, input_size, output_size, layers=layers, key=key, **sizes)
        super().__init__(stack, heads * key_size)
