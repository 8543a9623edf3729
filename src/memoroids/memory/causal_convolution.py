"""A short causal convolution over the steps of an episode, whose window is part of a memory's state."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class CausalConvolution(eqx.Module):
    """y_t = b + Σ_i w_i ⊙ x_{t-i}, i < size, of each channel alone, over the steps of t's own episode.

    Without `bias`, b is None, for 0. Parameters start uniformly within ±1/√size, as PyTorch's do. State: the last
    size - 1 inputs, the latest last, float32 (size - 1, channels).
    """

    weight: jax.Array
    bias: jax.Array | None

    def __init__(self, channels: int, size: int, *, bias: bool = True, key: jax.Array):
        limit = size**-0.5
        weight_key, bias_key = jax.random.split(key)
        self.weight = jax.random.uniform(weight_key, (size, channels), jnp.float32, -limit, limit)
        self.bias = jax.random.uniform(bias_key, (channels,), jnp.float32, -limit, limit) if bias else None

    def initial_state(self) -> jax.Array:
        """Zeros."""
        size, channels = self.weight.shape
        return jnp.zeros((size - 1, channels), jnp.float32)

    def __call__(self, x: jax.Array, begin: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The outputs (T, channels) of x (T, channels), float32, and the state after the last step."""
        size, length = self.weight.shape[0], x.shape[0]
        before = np.arange(1 - size, 0, dtype=np.int32)
        inputs = jnp.concatenate((state, x))
        # The beginning of each step's episode; steps before the sequence belong to the first one, if it goes on.
        time = jnp.arange(length, dtype=jnp.int32)
        start = lax.cummax(jnp.where(begin, time, 1 - size))

        weight, bias = self._parameters()
        out = jnp.broadcast_to(bias, x.shape)
        for i in range(size):
            ago = inputs[size - 1 - i : size - 1 - i + length]
            out = out + weight[i][None, :] * jnp.where((time - i >= start)[:, None], ago, 0)
        kept = (length + before >= start[-1])[:, None]
        return out, jnp.where(kept, inputs[length:], 0)

    def step(self, x: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The output (channels,) of one x (channels,), float32, and the new state."""
        window = jnp.concatenate((state, x[None]))
        weight, bias = self._parameters()
        return bias + jnp.sum(weight[::-1] * window, axis=0), window[1:]

    def _parameters(self) -> tuple[jax.Array, jax.Array]:
        """w (size, channels) and b (channels,), float32."""
        weight = self.weight.astype(jnp.float32)
        return weight, jnp.zeros_like(weight[0]) if self.bias is None else self.bias.astype(jnp.float32)
