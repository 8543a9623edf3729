"""RWKV-7, a generalised delta rule between shifts by one step (Peng et al. 2025)."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.resettable import select
from memoroids.memory.layers import Residual, layer_norm, unit
from memoroids.memory.matrix_memoroid import delta_rule_in_heads, group_norm, in_heads, read_heads
from memoroids.memory.memoroid import CheckedMemory, State, check_sizes
from memoroids.memory.sequential import step_by_step

LARGEST_RATE = math.exp(-0.5)
"""The largest decay of a step is exp of minus this (Equation 12), so that no row of the state is forgotten at once."""


class LowRank(eqx.Module):
    """b + B f(A x): (inputs,) → (outputs,), through `rank` numbers. A starts at 0 and B orthogonal, times 0.1."""

    a: jax.Array
    b: jax.Array
    bias: jax.Array | None

    def __init__(self, inputs: int, rank: int, outputs: int, bias: jax.Array | None, *, key: jax.Array):
        gain = max(1.0, math.sqrt(rank / outputs))
        self.a, self.bias = jnp.zeros((rank, inputs), jnp.float32), bias
        self.b = jax.nn.initializers.orthogonal(0.1 * gain)(key, (outputs, rank), jnp.float32)

    def down(self, x: jax.Array) -> jax.Array:
        """A x, (rank,)."""
        return self.a @ x

    def up(self, hidden: jax.Array) -> jax.Array:
        """b + B hidden, (outputs,)."""
        up = self.b @ hidden
        return up if self.bias is None else self.bias + up


class RWKV7(CheckedMemory):
    """An RWKV-7 layer: time mixing, y = o + W_o (g ⊙ p), and channel mixing, s = y + W_2 ReLU(W_1 c)².

    S_t = S_{t-1} (diag(w) - κ̂ᵀ (a ⊙ κ̂)) + vᵀ k̃ for every head (Equation 16), read by r, with rows for vectors:
    the removal key κ̂ = ξ ⊙ k scaled to length 1, the rate a = σ(·), the replacement key k̃ = k ⊙ (1 + (a - 1) ⊙ α), the
    decay w = exp(-e^(-1/2) σ(·)), and p = GN(S r) + (r·(ρ ⊙ k̃)) v. r, k, v are linear, and the arguments of w and a and
    the gate g of low rank `rank`, in mixtures u_t + μ ⊙ (u_{t-1} - u_t) of the normalised input with that of the step
    before in the episode, each with its own μ; so is c, with LN(y). GN is the group norm by heads; norms have no
    parameters. The paper, moreover, mixes the values of its first layer into those of the layers above.

    State: float32 (output_size,) twice, the normalised inputs of both mixings at the last step, and (heads, head_size,
    head_size), Sᵀ; the begin flag resets all. The published layer has heads · head_size = output_size and a hidden_size
    of 4 output_size. Parameters start as those of the first layer do in an early version of the authors' code, W_o and
    W_2 at 0; its group norm adds 64e-5 to the variance, this one 1e-5. Raises `ValueError` unless sizes are at least 1.

    The default backend "chunked" is `memoroids.algebra.delta_rule`, which does not store the state of every step; the
    other is "sequential".
    """

    backends: ClassVar[tuple[str, ...]] = ("chunked", "sequential")

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    mu: jax.Array
    w_r: jax.Array
    w_k: jax.Array
    w_v: jax.Array
    decay: LowRank
    rate: LowRank
    gate: LowRank
    xi: jax.Array
    alpha: jax.Array
    rho: jax.Array
    w_o: jax.Array
    mu_c: jax.Array
    w_1: jax.Array
    w_2: jax.Array
    surround: Residual

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        heads: int = 4,
        head_size: int = 16,
        rank: int = 16,
        hidden_size: int = 128,
    ):
        sizes = {"heads": heads, "head_size": head_size, "rank": rank, "hidden_size": hidden_size}
        check_sizes("RWKV7", input_size=input_size, output_size=output_size, **sizes)
        self.input_size, self.output_size, self.heads = input_size, output_size, heads
        kr, kk, kv, kw, ka, kg, k1, ks = jax.random.split(key, 8)
        wide, place = heads * head_size, jnp.arange(output_size, dtype=jnp.float32) / output_size
        # Of r, w, k, v, a and g, in this order.
        self.mu = 1 - place[None, :] ** jnp.asarray([[0.2], [0.9], [0.9], [0.4], [0.9], [0.2]], jnp.float32)

        def uniform(k: jax.Array, outputs: int, limit: float) -> jax.Array:
            limit /= math.sqrt(output_size)
            return jax.random.uniform(k, (outputs, output_size), jnp.float32, -limit, limit)

        self.w_r, self.w_k, self.w_v = uniform(kr, wide, 0.5), uniform(kk, wide, 0.05), uniform(kv, wide, 0.5)
        slow = jnp.arange(wide, dtype=jnp.float32) / max(1, wide - 1)
        self.decay = LowRank(output_size, rank, wide, -6.5 + 5 * slow**0.85, key=kw)
        self.rate = LowRank(output_size, rank, wide, jnp.zeros(wide, jnp.float32), key=ka)
        self.gate = LowRank(output_size, rank, wide, None, key=kg)
        self.xi, self.alpha = jnp.full(wide, 0.85, jnp.float32), jnp.ones(wide, jnp.float32)
        self.rho = jnp.zeros((heads, head_size), jnp.float32)
        self.w_o = jnp.zeros((output_size, wide), jnp.float32)
        self.mu_c = 1 - place
        self.w_1, self.w_2 = uniform(k1, hidden_size, 0.5), jnp.zeros((output_size, hidden_size), jnp.float32)
        self.surround = Residual(input_size, output_size, key=ks)

    def initial_state(self) -> State:
        """Zeros."""
        size, last = self.rho.shape[1], jnp.zeros(self.output_size, jnp.float32)
        return last, last, jnp.zeros((self.heads, size, size), jnp.float32)

    def _run(self, x: jax.Array, begin: jax.Array, state: State, backend: str | None) -> tuple[jax.Array, State]:
        if backend == "sequential":
            return step_by_step(self, x, begin, state)
        last_u, last_c, sums = state
        u = jax.vmap(self._normed)(x)
        parts = jax.vmap(self._project)(u, _before(u, begin, last_u))
        query, key, value, removal, rate, log_decay, _ = parts
        # What is read here has decayed already, and in the paper it has not; w is at least 0.54.
        read, erase = removal * jnp.exp(-log_decay), rate * removal
        reads, sums = delta_rule_in_heads(query, key, value, read, log_decay, erase, begin, sums)
        y = jax.vmap(self._leave_time)(reads, parts, x)
        c = jax.vmap(layer_norm)(y).astype(jnp.float32)
        return jax.vmap(self._leave_channels)(y, c, _before(c, begin, last_c)), (u[-1], c[-1], sums)

    def step(self, x: jax.Array, begin: jax.Array, state: State) -> tuple[jax.Array, State]:
        """One step of both mixings, from zeros if `begin`."""
        last_u, last_c, sums = select(begin, self.initial_state(), state)
        u = self._normed(x)
        parts = self._project(u, last_u)
        query, key, value, removal, rate, log_decay, _ = parts
        old = read_heads(sums, removal)
        sums = jnp.exp(log_decay)[:, :, None] * sums - (rate * removal)[:, :, None] * old[:, None, :]
        sums = sums + key[:, :, None] * value[:, None, :]
        y = self._leave_time(read_heads(sums, query), parts, x)
        c = layer_norm(y).astype(jnp.float32)
        return self._leave_channels(y, c, last_c), (u, c, sums)

    def _normed(self, x: jax.Array) -> jax.Array:
        return self.surround.enter(x).astype(jnp.float32)

    def _project(self, u: jax.Array, before: jax.Array) -> tuple[jax.Array, ...]:
        """r, k̃, v, κ̂, a and log w, float32 (heads, head_size) each, and g."""
        for_r, for_w, for_k, for_v, for_a, for_g = u[None, :] + self.mu * (before - u)[None, :]
        query, k, value = (
            in_heads(w @ v, self.heads) for w, v in ((self.w_r, for_r), (self.w_k, for_k), (self.w_v, for_v))
        )
        xi, alpha = (in_heads(w, self.heads) for w in (self.xi, self.alpha))
        log_decay = -LARGEST_RATE * jax.nn.sigmoid(self.decay.up(jnp.tanh(self.decay.down(for_w))))
        rate = in_heads(jax.nn.sigmoid(self.rate.up(self.rate.down(for_a))), self.heads)
        gate = self.gate.up(jax.nn.sigmoid(self.gate.down(for_g)))
        key, removal = k * (1 + (rate - 1) * alpha), jax.vmap(unit)(xi * k)
        return query, key, value, removal, rate, in_heads(log_decay, self.heads), gate

    def _leave_time(self, reads: jax.Array, parts: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
        """y, given S r (heads, head_size) and what `_project` gives."""
        query, key, value, *_, gate = parts
        bonus = jnp.sum(query * self.rho * key, axis=1, keepdims=True) * value
        return self.surround.leave(self.w_o @ (gate * (group_norm(reads) + bonus.ravel())), x)

    def _leave_channels(self, y: jax.Array, c: jax.Array, before: jax.Array) -> jax.Array:
        return y + self.w_2 @ jnp.square(jax.nn.relu(self.w_1 @ (c + self.mu_c * (before - c))))


def _before(rows: jax.Array, begin: jax.Array, last: jax.Array) -> jax.Array:
    """The row of the step before each step (T, n), which is `last` for the first one, and 0 at the begin flags."""
    return jnp.where(begin[:, None], 0, jnp.concatenate((last[None], rows[:-1])))
