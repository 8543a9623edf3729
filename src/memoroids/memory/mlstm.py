"""The LSTM with a matrix memory, mLSTM (Beck et al. 2024)."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.monoid import Monoid
from memoroids.algebra.resettable import Resettable, select
from memoroids.algebra.scan import BACKENDS, scan
from memoroids.memory.layers import TransformerBlock, linear
from memoroids.memory.matrix_memoroid import attend_in_heads, group_norm, in_heads, read_heads
from memoroids.memory.memoroid import Memoroid, check_sizes

State = tuple[jax.Array, ...]

LOWEST = -1e30
"""The stabiliser of an empty sum: finite, so that differences of two are defined, and absorbing in float32."""

LARGEST_EXPONENT = 80.0
"""Exponents of exp(-m) are clipped to ± this: beyond it, a read is 0 or needs no lower bound, and float32 overflows."""


class Stabiliser(Monoid):
    """(g, m) • (g', m') = (g + g', max(m + g', m')), e = (0, lowest): the largest logarithm of a decayed weight."""

    heads: int = eqx.field(static=True)

    def identity(self) -> tuple[jax.Array, jax.Array]:
        """No decay, and the lowest weight."""
        return jnp.zeros(self.heads, jnp.float32), jnp.full(self.heads, LOWEST, jnp.float32)

    def combine(
        self, left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """The larger of the weight `left`, decayed by `right`, and the weight `right`."""
        (g, m), (g_next, m_next) = left, right
        return g + g_next, jnp.maximum(m + g_next, m_next)


class StabilisedSum(Monoid):
    """Decaying sums (C, n) with their scale e^m taken out: the sums are e^m C and e^m n.

    (g, C, n, m) • (g', C', n', m') = (g + g', a C + b C', a n + b n', M), e = (0, 0, 0, lowest), with (g + g', M) as in
    `Stabiliser`, a = exp(m + g' - M) and b = exp(m' - M), neither above 1. float32: g, the log decay, and m, (heads,),
    C (heads, j, k) and n (heads, j).
    """

    heads: int = eqx.field(static=True)
    key_size: int = eqx.field(static=True)
    value_size: int = eqx.field(static=True)

    def identity(self) -> tuple[jax.Array, ...]:
        """Empty sums."""
        g, m = Stabiliser(self.heads).identity()
        shape = self.heads, self.key_size
        return g, jnp.zeros((*shape, self.value_size), jnp.float32), jnp.zeros(shape, jnp.float32), m

    def combine(self, left: tuple[jax.Array, ...], right: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """The sums `left`, decayed by `right`, plus the sums `right`, at the larger of the two scales."""
        (g, c, n, m), (g_next, c_next, n_next, m_next) = left, right
        decay, largest = Stabiliser(self.heads).combine((g, m), (g_next, m_next))
        a, b = jnp.exp(m + g_next - largest), jnp.exp(m_next - largest)
        c = a[:, None, None] * c + b[:, None, None] * c_next
        return decay, c, a[:, None] * n + b[:, None] * n_next, largest


class MLSTM(Memoroid):
    """An mLSTM layer: s = x + W_d(o ⊙ GN(h)) with h = Cᵀq / max(|n · q|, 1) for every head, u = LN(x).

    C_t = f C_{t-1} + i k vᵀ and n_t = f n_{t-1} + i k, with i = exp(w_i u + b_i), f = σ(w_f u + b_f), o = σ(W_o u +
    b_o), q = W_q u + b_q, k = W_k u / √j + b_k and v = W_v u + b_v. GN is the group norm by heads; norms have no
    parameters. The paper's block, moreover, widens its input and convolves it before this cell.

    State: (C, n, m), float32 (heads, key_size, value_size), (heads, key_size) and (heads,), where m is the paper's
    stabiliser and C and n are those above times e^-m. As in the authors' code, b_f starts evenly spaced from 3 to 6 and
    b_i normal with standard deviation 0.1; they start w_f and w_i at 0, and here all linear layers start as Equinox's
    do. Raises `ValueError` unless sizes are at least 1.

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
    w_i: eqx.nn.Linear
    w_f: eqx.nn.Linear
    w_o: eqx.nn.Linear
    w_d: eqx.nn.Linear
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
    ):
        check_sizes(
            "MLSTM",
            input_size=input_size,
            output_size=output_size,
            heads=heads,
            key_size=key_size,
            value_size=value_size,
        )
        self.input_size, self.output_size, self.heads = input_size, output_size, heads
        kq, kk, kv, ki, kf, ko, kd, kb, bias_key = jax.random.split(key, 9)
        self.w_q, self.w_k = (linear(output_size, heads * key_size, k, bias=True) for k in (kq, kk))
        self.w_v, self.w_o = (linear(output_size, heads * value_size, k, bias=True) for k in (kv, ko))
        w_i, w_f = (linear(output_size, heads, k, bias=True) for k in (ki, kf))
        biases = 0.1 * jax.random.normal(bias_key, (heads,), jnp.float32), jnp.linspace(3, 6, heads, dtype=jnp.float32)
        self.w_i, self.w_f = (eqx.tree_at(lambda w: w.bias, w, b) for w, b in zip((w_i, w_f), biases, strict=True))
        self.w_d = linear(heads * value_size, output_size, kd)
        self.block = TransformerBlock(input_size, output_size, key=kb)

    @property
    def monoid(self) -> StabilisedSum:
        """`StabilisedSum`, of the shape of the state."""
        key_size, value_size = (w.weight.shape[0] // self.heads for w in (self.w_k, self.w_v))
        return StabilisedSum(self.heads, key_size, value_size)

    def initial_state(self) -> State:
        """Empty sums."""
        _, *state = self.monoid.identity()
        return tuple(state)

    def lift(self, x: jax.Array, begin: jax.Array) -> tuple[jax.Array, ...]:
        """(log f, k vᵀ, k, log i)."""
        del begin
        _, key, value, log_input, log_forget = self._project(x)
        return log_forget, key[:, :, None] * value[:, None, :], key, log_input

    def readout(self, h: State, x: jax.Array, begin: jax.Array) -> jax.Array:
        """The layer's output, where `h` is (C, n, m)."""
        del begin
        c, n, m = h
        query, *_ = self._project(x)
        sums = jnp.concatenate((c, n[:, :, None]), axis=2)
        return self._output(read_heads(sums, query), m, x)

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """One step of the recurrence, from empty sums if `begin`, and its readout."""
        kept = select(begin, self.initial_state(), state)
        _, *after = self.monoid.combine((jnp.zeros(self.heads, jnp.float32), *kept), self.lift(x, begin))
        return self.readout(tuple(after), x, begin), tuple(after)

    def _run(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> tuple[jax.Array, State]:
        if backend not in (None, "chunked"):
            return super()._run(x, begin, state, backend)
        c, n, m = state
        query, key, value, log_input, log_forget = jax.vmap(self._project)(x)
        scales = Stabiliser(self.heads)
        initial = (jnp.zeros(self.heads, jnp.float32), m), jnp.zeros((), bool)
        (_, largest), _ = scan(Resettable(scales), ((log_forget, log_input), begin), initial=initial)
        before = jnp.where(begin[:, None], LOWEST, jnp.concatenate((m[None], largest[:-1])))
        # The factor of C from one step to the next, at the scales of both; at most 1, as is the weight of the key.
        log_decay = (before + log_forget) - largest
        key = jnp.exp(log_input - largest)[:, :, None] * key
        value = jnp.concatenate((value, jnp.ones_like(value[:, :, :1])), axis=2)
        sums = jnp.concatenate((c, n[:, :, None]), axis=2)
        attended, sums = attend_in_heads(query, key, value, log_decay[:, :, None], begin, sums)
        return jax.vmap(self._output)(attended, largest, x), (sums[:, :, :-1], sums[:, :, -1], largest[-1])

    def _accumulate(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> State:
        elements = jax.vmap(self.lift)(x, begin), begin
        initial = (jnp.zeros(self.heads, jnp.float32), *state), jnp.zeros((), bool)
        (_, *states), _ = scan(Resettable(self.monoid), elements, initial=initial, backend=backend)
        return tuple(states)

    def _project(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """q, k, v, log i and log f of one observation."""
        u = self.block.enter(x)
        query, value = (in_heads(w(u), self.heads) for w in (self.w_q, self.w_v))
        scale = float(query.shape[1]) ** -0.5
        key = in_heads(scale * (self.w_k.weight @ u) + self.w_k.bias, self.heads)
        log_input, forget = (w(u).astype(jnp.float32) for w in (self.w_i, self.w_f))
        return query, key, value, log_input, jax.nn.log_sigmoid(forget)

    def _output(self, attended: jax.Array, m: jax.Array, x: jax.Array) -> jax.Array:
        """The layer's output, given Cᵀq with n · q as its last column, both at the scale e^m."""
        numerator, normaliser = attended[:, :-1], attended[:, -1]
        least = jnp.exp(jnp.clip(-m, -LARGEST_EXPONENT, LARGEST_EXPONENT))
        h = numerator / jnp.maximum(jnp.abs(normaliser), least)[:, None]
        gate = jax.nn.sigmoid(self.w_o(self.block.enter(x)))
        return self.block.leave(self.w_d(gate * group_norm(h)), x)
