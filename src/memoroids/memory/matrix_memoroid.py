"""Memory models whose state is a matrix a head, a decaying sum of keys and values that queries read."""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from memoroids.algebra.decayed_attention import DecayedSum, decayed_attention
from memoroids.algebra.delta_rule import delta_rule
from memoroids.algebra.resettable import Resettable, select
from memoroids.algebra.scan import BACKENDS, scan
from memoroids.memory.layers import layer_norm
from memoroids.memory.memoroid import Memoroid

Projections = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
"""Query (heads, j), key (heads, j), value (heads, k) and log decay (heads, j) or (heads, 1) of one step."""


def in_heads(x: jax.Array, heads: int) -> jax.Array:
    """x (heads · n,) as float32 (heads, n)."""
    return x.astype(jnp.float32).reshape(heads, -1)


def group_norm(x: jax.Array) -> jax.Array:
    """x (heads, n), each head normalised by `layer_norm`, as (heads · n,)."""
    return jax.vmap(layer_norm)(x).ravel()


def read_heads(state: jax.Array, query: jax.Array) -> jax.Array:
    """Sᵀq of every head, (heads, k)."""
    return jnp.einsum("hjk,hj->hk", state, query, precision=jax.lax.Precision.HIGHEST)


def attend_in_heads(
    query: jax.Array, key: jax.Array, value: jax.Array, log_decay: jax.Array, begin: jax.Array, state: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`decayed_attention` of every head: sums (T, heads, k) and the state (heads, j, k) after the last step.

    `query` and `key` are (T, heads, j), `value` (T, heads, k), `state` (heads, j, k) and `log_decay` (T, heads, j),
    (T, heads, 1), or (heads,) for a constant.
    """
    if log_decay.shape[-1] == 1 and log_decay.ndim == 3:
        log_decay = log_decay[..., 0]

    def attend(inputs: tuple[jax.Array, jax.Array, jax.Array], log_decay: jax.Array, state: jax.Array) -> Any:
        return decayed_attention(*inputs, log_decay, reset=begin, initial=state)

    over_time = min(log_decay.ndim - 1, 1)
    return jax.vmap(attend, in_axes=(1, over_time, 0), out_axes=(1, 0))((query, key, value), log_decay, state)


def delta_rule_in_heads(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    read: jax.Array,
    log_decay: jax.Array,
    erase: jax.Array | None,
    begin: jax.Array,
    state: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """`delta_rule` of every head: products (T, heads, k) and the state (heads, j, k) after the last step.

    Arrays are (T, heads, j) or, the values, (T, heads, k); `log_decay` is (T, heads, j) or (T, heads).
    """

    def each(inputs: tuple[jax.Array, ...], erase: jax.Array | None, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        return delta_rule(*inputs, erase=erase, reset=begin, initial=state)

    return jax.vmap(each, in_axes=(1, 1, 0), out_axes=(1, 0))((query, key, value, read, log_decay), erase, state)


class MatrixMemoroid(Memoroid):
    """A memoroid of `DecayedSum`: S_t = exp(g_t) ⊙ S_{t-1} + k_t v_tᵀ and S_tᵀ q_t, for each of several heads.

    A subclass defines `sums`, `project` and `output`. The state is S, the second component of the monoid's element,
    float32 (heads, j, k). The default backend "chunked" is `memoroids.algebra.decayed_attention`, which does not store
    the state of every step; the backends of `scan` do.
    """

    backends: ClassVar[tuple[str, ...]] = ("chunked", *BACKENDS)

    @property
    @abc.abstractmethod
    def sums(self) -> DecayedSum:
        """The monoid, of the shape of the state."""

    @abc.abstractmethod
    def project(self, x: jax.Array) -> Projections:
        """Query, key, value and log decay of one observation (input_size,), float32."""

    @abc.abstractmethod
    def output(self, attended: jax.Array, x: jax.Array) -> jax.Array:
        """The Markov state (output_size,) of Sᵀq (heads, k) and the observation."""

    @property
    def monoid(self) -> DecayedSum:
        """`sums`."""
        return self.sums

    def lift(self, x: jax.Array, begin: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The pair (g, k vᵀ)."""
        del begin
        _, key, value, log_decay = self.project(x)
        return log_decay, key[:, :, None] * value[:, None, :]

    def readout(self, h: jax.Array, x: jax.Array, begin: jax.Array) -> jax.Array:
        """`output` of Sᵀq, where `h` is S."""
        del begin
        query, *_ = self.project(x)
        return self.output(read_heads(h, query), x)

    def initial_state(self) -> jax.Array:
        """Zeros."""
        return self.sums.identity()[1]

    def step(self, x: jax.Array, begin: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One step of the recurrence, from a zero state if `begin`, and its readout."""
        state = select(begin, self.initial_state(), state)
        query, key, value, log_decay = self.project(x)
        state = jnp.exp(log_decay)[:, :, None] * state + key[:, :, None] * value[:, None, :]
        return self.output(read_heads(state, query), x), state

    def _run(
        self, x: jax.Array, begin: jax.Array, state: jax.Array, backend: str | None
    ) -> tuple[jax.Array, jax.Array]:
        if backend not in (None, "chunked"):
            return super()._run(x, begin, state, backend)
        attended, state = attend_in_heads(*jax.vmap(self.project)(x), begin, state)
        return jax.vmap(self.output)(attended, x), state

    def _accumulate(self, x: jax.Array, begin: jax.Array, state: jax.Array, backend: str | None) -> jax.Array:
        log_decay, _ = self.sums.identity()
        initial = (log_decay, state), jnp.zeros((), bool)
        elements = jax.vmap(self.lift)(x, begin), begin
        (_, states), _ = scan(Resettable(self.sums), elements, initial=initial, backend=backend)
        return states
