"""Retention, the recurrence of RetNet (Sun et al. 2023)."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.algebra.monoid import Monoid
from memoroids.algebra.scan import BACKENDS
from memoroids.algebra.window import steps_before
from memoroids.memory.layers import TransformerBlock, linear, rotate
from memoroids.memory.matrix_memoroid import attend_in_heads, group_norm, in_heads, read_heads
from memoroids.memory.memoroid import Memoroid, check_sizes


def log_gamma(heads: int) -> np.ndarray:
    """log(1 - 2^(-5-i)) of head i, float32 (heads,)."""
    return np.log1p(-np.exp2(-5.0 - np.arange(heads))).astype(np.float32)


class Retained(Monoid):
    """(n, X) • (n', X') = (n + n', γ^n' X + R^n X'), e = (0, 0), where R turns the rows of X by one step.

    n counts steps, in float32 and so up to 2^24; X is float32 (heads, j, k), with the γ of each head. An element's keys
    are turned by their positions in it, and by n more when n steps come before it.
    """

    heads: int = eqx.field(static=True)
    key_size: int = eqx.field(static=True)
    value_size: int = eqx.field(static=True)

    def identity(self) -> tuple[jax.Array, jax.Array]:
        """No steps and zeros."""
        return jnp.zeros((), jnp.float32), jnp.zeros((self.heads, self.key_size, self.value_size), jnp.float32)

    def combine(
        self, left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """The sum `left`, decayed by the steps of `right`, plus the sum `right`, turned by the steps of `left`."""
        (n, x), (n_next, x_next) = left, right
        kept = jnp.exp(n_next * log_gamma(self.heads))[:, None, None] * x
        columns = jnp.swapaxes(x_next, 1, 2)
        turned = rotate(columns, jnp.broadcast_to(n, columns.shape[:-1]))
        return n + n_next, kept + jnp.swapaxes(turned, 1, 2)


class RetNet(Memoroid):
    """A RetNet layer: s = y + FFN(LN(y)) with y = o + W_o(swish(W_g u) ⊙ GN(S_nᵀ R^n q)), u = LN(o).

    S_n = γ S_{n-1} + (R^n k) vᵀ for every head, with q = W_q u, k = W_k u / √j, v = W_v u, γ = 1 - 2^(-5-i) of head i,
    and R the rotation of `rotate`, the rotary part of xPos; its decay is γ. FFN is W_2 GELU(W_1 ·), GN the group norm
    by heads, and norms have no parameters. n counts the steps since the begin flag.

    State: float32 (), the number of steps, and float32 (heads, key_size, value_size). The paper initialises as DeepNet
    does, with gains for the depth of the network; here linear layers start as Equinox's do. It takes values twice as
    wide as keys, and FFN twice as wide as the layer. Raises `ValueError` unless sizes are at least 1.

    The default backend "chunked" is `memoroids.algebra.decayed_attention`, which does not store the state of every
    step; the backends of `scan` do.
    """

    backends: ClassVar[tuple[str, ...]] = ("chunked", *BACKENDS)

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    w_q: eqx.nn.Linear
    w_k: eqx.nn.Linear
    w_v: eqx.nn.Linear
    w_g: eqx.nn.Linear
    w_o: eqx.nn.Linear
    block: TransformerBlock

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        heads: int = 4,
        key_size: int = 16,
        value_size: int = 32,
        hidden_size: int = 128,
    ):
        check_sizes(
            "RetNet",
            input_size=input_size,
            output_size=output_size,
            heads=heads,
            key_size=key_size,
            value_size=value_size,
            hidden_size=hidden_size,
        )
        self.input_size, self.output_size, self.heads = input_size, output_size, heads
        kq, kk, kv, kg, ko, kb = jax.random.split(key, 6)
        self.w_q, self.w_k = (linear(output_size, heads * key_size, k) for k in (kq, kk))
        self.w_v, self.w_g = (linear(output_size, heads * value_size, k) for k in (kv, kg))
        self.w_o = linear(heads * value_size, output_size, ko)
        self.block = TransformerBlock(input_size, output_size, hidden_size, gated=False, key=kb)

    @property
    def monoid(self) -> Retained:
        """`Retained`, of the shape of the state."""
        key_size, value_size = (w.weight.shape[0] // self.heads for w in (self.w_k, self.w_v))
        return Retained(self.heads, key_size, value_size)

    def lift(self, x: jax.Array, begin: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The pair (1, k vᵀ)."""
        del begin
        _, key, value = self._project(x)
        return jnp.ones((), jnp.float32), key[:, :, None] * value[:, None, :]

    def readout(self, h: tuple[jax.Array, jax.Array], x: jax.Array, begin: jax.Array) -> jax.Array:
        """The layer's output, where `h` is (n, S) and the query is that of step n - 1, counted from 0."""
        del begin
        count, state = h
        query, _, _ = self._project(x)
        query = rotate(query, jnp.broadcast_to(count - 1, query.shape[:-1]))
        return self._output(read_heads(state, query), x)

    def _run(
        self, x: jax.Array, begin: jax.Array, state: tuple[jax.Array, jax.Array], backend: str | None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        if backend not in (None, "chunked"):
            return super()._run(x, begin, state, backend)
        count, sums = state
        query, key, value = jax.vmap(self._project)(x)
        position = steps_before(begin, count)
        turns = jnp.broadcast_to(position[:, None], query.shape[:-1])
        query, key = rotate(query, turns), rotate(key, turns)
        attended, sums = attend_in_heads(query, key, value, jnp.asarray(log_gamma(self.heads)), begin, sums)
        return jax.vmap(self._output)(attended, x), (position[-1] + 1, sums)

    def _project(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        u = self.block.enter(x)
        query, key, value = (in_heads(w(u), self.heads) for w in (self.w_q, self.w_k, self.w_v))
        return query, key * float(key.shape[-1]) ** -0.5, value

    def _output(self, attended: jax.Array, x: jax.Array) -> jax.Array:
        gate = jax.nn.silu(self.w_g(self.block.enter(x)))
        return self.block.leave(self.w_o(gate * group_norm(attended)), x)
