"""The Linear Transformer (Katharopoulos et al. 2020; Morad et al. 2024, G.1)."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.linear_attention import linear_attention
from memoroids.algebra.monoid import Monoid, Product, Sum
from memoroids.algebra.scan import BACKENDS
from memoroids.memory.layers import Block
from memoroids.memory.memoroid import Memoroid, check_sizes


def phi(x: jax.Array) -> jax.Array:
    """φ(x) = 1 + ELU(x), positive everywhere."""
    return 1 + jax.nn.elu(x)


class LinearTransformer(Memoroid):
    """Linear attention: sums of key-value products and of keys, (X, x) • (X', x') = (X + X', x + x'), e = (0, 0).

    f = (φ(W_k o)(W_v o)ᵀ, φ(W_k o)); s = MLP(W_o Xᵀφ(W_q o) / (xᵀφ(W_q o) + ε)) + W_s o. The paper writes Xφ, which
    would contract the value axis; ε keeps the division defined if φ underflows.

    State: float32 (key_size, value_size) and (key_size,), the paper's j and k. The linear layers start as Equinox's do.
    Raises `ValueError` unless epsilon > 0 and finite, and sizes are at least 1.

    The default backend "chunked" is `memoroids.algebra.linear_attention`, which does not store the state of every step;
    the backends of `scan` do.
    """

    backends: ClassVar[tuple[str, ...]] = ("chunked", *BACKENDS)

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)
    w_k: eqx.nn.Linear
    w_q: eqx.nn.Linear
    w_v: eqx.nn.Linear
    w_o: eqx.nn.Linear
    w_s: eqx.nn.Linear
    mlp: tuple[Block, eqx.nn.Linear]

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        key_size: int = 16,
        value_size: int = 16,
        epsilon: float = 1e-6,
    ):
        if not 0.0 < epsilon < math.inf:
            raise ValueError(f"LinearTransformer: needs a finite epsilon above 0, got epsilon={epsilon}")
        check_sizes(
            "LinearTransformer",
            input_size=input_size,
            output_size=output_size,
            key_size=key_size,
            value_size=value_size,
        )
        self.input_size, self.output_size, self.epsilon = input_size, output_size, epsilon
        kk, kq, kv, ko, ks, k1, k2 = jax.random.split(key, 7)
        self.w_k = eqx.nn.Linear(input_size, key_size, use_bias=False, dtype=jnp.float32, key=kk)
        self.w_q = eqx.nn.Linear(input_size, key_size, use_bias=False, dtype=jnp.float32, key=kq)
        self.w_v = eqx.nn.Linear(input_size, value_size, use_bias=False, dtype=jnp.float32, key=kv)
        self.w_o = eqx.nn.Linear(value_size, output_size, use_bias=False, dtype=jnp.float32, key=ko)
        self.w_s = eqx.nn.Linear(input_size, output_size, use_bias=False, dtype=jnp.float32, key=ks)
        self.mlp = (
            Block(output_size, output_size, key=k1),
            eqx.nn.Linear(output_size, output_size, dtype=jnp.float32, key=k2),
        )

    @property
    def monoid(self) -> Monoid:
        """Addition of pairs (X, x)."""
        key_size, value_size = self.w_k.weight.shape[0], self.w_v.weight.shape[0]
        return Product(Sum((key_size, value_size)), Sum((key_size,)))

    def lift(self, x: jax.Array, begin: jax.Array) -> tuple[jax.Array, jax.Array]:
        """f(o) = (φ(W_k o)(W_v o)ᵀ, φ(W_k o))."""
        del begin
        key = self._key(x)
        return jnp.outer(key, self._value(x)), key

    def readout(self, h: tuple[jax.Array, jax.Array], x: jax.Array, begin: jax.Array) -> jax.Array:
        """MLP(W_o Xᵀφ(W_q o) / (xᵀφ(W_q o) + ε)) + W_s o, where `h` is (X, x)."""
        del begin
        key_values, keys = h
        query = self._query(x)
        return self._output(key_values.T @ query, jnp.dot(keys, query), x)

    def _run(
        self, x: jax.Array, begin: jax.Array, state: tuple[jax.Array, jax.Array], backend: str | None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        if backend not in (None, "chunked"):
            return super()._run(x, begin, state, backend)
        query, key, value = (jax.vmap(project)(x) for project in (self._query, self._key, self._value))
        attended, normaliser, state = linear_attention(query, key, value, reset=begin, initial=state)
        return jax.vmap(self._output)(attended, normaliser, x), state

    def _key(self, x: jax.Array) -> jax.Array:
        return phi(self.w_k(x).astype(jnp.float32))

    def _query(self, x: jax.Array) -> jax.Array:
        return phi(self.w_q(x).astype(jnp.float32))

    def _value(self, x: jax.Array) -> jax.Array:
        return self.w_v(x).astype(jnp.float32)

    def _output(self, attended: jax.Array, normaliser: jax.Array, x: jax.Array) -> jax.Array:
        block, linear = self.mlp
        return linear(block(self.w_o(attended / (normaliser + self.epsilon)))) + self.w_s(x)
