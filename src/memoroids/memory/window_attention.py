"""Transformer layers with sliding-window attention and rotary positions (Beltagy et al. 2020; Su et al. 2021)."""

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.algebra.band_attention import band_attention
from memoroids.memory.layers import TransformerBlock, linear, rotate
from memoroids.memory.memoroid import check_sizes
from memoroids.memory.windowed import WindowedMemory


class WindowAttention(WindowedMemory):
    """One pre-norm Transformer layer in which every step attends to the last `window` steps of its episode.

        r = o, or P o if the widths differ; q, k, v = W LN(r), split into heads
        a_t = Σ_j softmax_j((R_t q_t) · (R_j k_j) / √d) v_j, over t - window < j ≤ t, in each head
        y = r + W_a a; s = y + W_2 GELU(W_1 LN(y) + b_1) + b_2

    R_t turns pairs of entries by angles that grow with t (`rotate`), so that scores depend on distances only. LN has no
    parameters, as elsewhere in this package; d is `head_size`. In a stack of n layers a step depends on the last
    n (window - 1) + 1 steps.

    The monoid is that of the last elements, `Window`. State: the keys, not rotated, and the values, float32
    (window, heads, 2 head_size), and their number, int32. The linear layers start as Equinox's do. Raises `ValueError`
    unless sizes are at least 1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    window: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    head_size: int = eqx.field(static=True)
    w_q: eqx.nn.Linear
    w_kv: eqx.nn.Linear
    w_a: eqx.nn.Linear
    block: TransformerBlock

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        window: int = 64,
        heads: int = 4,
        head_size: int = 16,
        hidden_size: int = 128,
    ):
        sizes = {"window": window, "heads": heads, "head_size": head_size, "hidden_size": hidden_size}
        check_sizes("WindowAttention", input_size=input_size, output_size=output_size, **sizes)
        self.input_size, self.output_size = input_size, output_size
        self.window, self.heads, self.head_size = window, heads, head_size
        q_key, kv_key, a_key, block_key = jax.random.split(key, 4)
        wide = heads * head_size
        self.w_q, self.w_kv = linear(output_size, wide, q_key), linear(output_size, 2 * wide, kv_key)
        self.w_a = linear(wide, output_size, a_key)
        self.block = TransformerBlock(input_size, output_size, hidden_size, gated=False, bias=True, key=block_key)

    @property
    def entry_shape(self) -> tuple[int, ...]:
        """(heads, 2 head_size): a key and a value for every head."""
        return self.heads, 2 * self.head_size

    def entry(self, x: jax.Array) -> jax.Array:
        """The key, not rotated, and the value."""
        return self.w_kv(self.block.enter(x)).reshape(self.entry_shape)

    def attend(self, x: jax.Array, entries: jax.Array, count: jax.Array) -> jax.Array:
        """The layer's outputs for consecutive steps; positions are counted from the first of `entries`."""
        steps = x.shape[0]
        query = jax.vmap(lambda row: self.w_q(self.block.enter(row)))(x).reshape(steps, self.heads, -1)
        key, value = jnp.split(entries, 2, axis=-1)
        position = jnp.broadcast_to(jnp.arange(entries.shape[0], dtype=jnp.int32)[:, None], key.shape[:-1])
        query, key = rotate(query.astype(jnp.float32), position[-steps:]), rotate(key, position)
        attended = band_attention(query, key, value, count).reshape(steps, -1)
        return jax.vmap(lambda row, read: self.block.leave(self.w_a(read), row))(x, attended)
