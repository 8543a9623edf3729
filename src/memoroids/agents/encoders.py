"""Encoders: from one observation and its begin flag to features, for vectors, images, and rows of several parts."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.envs.observations import Mixed
from memoroids.memory.layers import Block

ObservationShape = int | tuple[int, ...] | Mixed
"""The shape of one observation: n or (n,) of a vector, (H, W, C) of an image, or a row of several parts."""


class ConvEncoder(eqx.Module):
    """Three convolutions with leaky ReLU, then a block: (H, W, C) and the begin flag → (width,).

    Kernels 8, 4, 3, strides 4, 2, 1, no padding, channels 32, 64, 64 (Morad et al. 2024, Appendix H.5). Pixels range
    from 0 to 255, uint8 or float, and are scaled to [0, 1]. The flag is appended to the features that the block reads.

    Raises `ValueError` if the image is too small for the convolutions.
    """

    convolutions: tuple[eqx.nn.Conv2d, ...]
    block: Block

    def __init__(self, observation_shape: tuple[int, int, int], width: int, *, key: jax.Array):
        *size, channels = observation_shape
        layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
        least = 1
        for _, kernel, stride in reversed(layers):
            least = (least - 1) * stride + kernel
        if min(size) < least:
            raise ValueError(
                f"an image of shape {observation_shape} is too small: the three convolutions need {least} x {least} "
                "pixels (--observation vector flattens it)"
            )
        *keys, block_key = jax.random.split(key, len(layers) + 1)
        convolutions = []
        for (after, kernel, stride), conv_key in zip(layers, keys, strict=True):
            convolutions.append(eqx.nn.Conv2d(channels, after, kernel, stride, dtype=jnp.float32, key=conv_key))
            size = [(side - kernel) // stride + 1 for side in size]
            channels = after
        self.convolutions = tuple(convolutions)
        self.block = Block(channels * size[0] * size[1] + 1, width, key=block_key)

    def __call__(self, image: jax.Array, begin: jax.Array) -> jax.Array:
        """An image (H, W, C) and its begin flag, a bool scalar → features (width,)."""
        x = jnp.moveaxis(image.astype(jnp.float32) / 255, -1, 0)
        for convolution in self.convolutions:
            x = jax.nn.leaky_relu(convolution(x))
        return self.block(jnp.append(x, begin.astype(x.dtype)))


class MixedEncoder(eqx.Module):
    """An encoder for each image and for the vector of a row, joined by a block: (n,) and the begin flag → (width,).

    Each encoder is `width` wide and reads the begin flag. Without images there is nothing to join. Symbols are one-hot
    already (`memoroids.agents.normaliser`). Raises `ValueError` if an image is too small.
    """

    images: tuple[ConvEncoder, ...]
    vector: Block | None
    join: Block | None
    layout: Mixed = eqx.field(static=True)

    def __init__(self, layout: Mixed, width: int, *, key: jax.Array):
        join_key, vector_key, *keys = jax.random.split(key, len(layout.images) + 2)
        self.layout = layout
        self.images = tuple(ConvEncoder(shape, width, key=k) for shape, k in zip(layout.images, keys, strict=True))
        self.vector = Block(layout.inputs + 1, width, key=vector_key) if layout.vector else None
        several = width * (len(self.images) + (self.vector is not None))
        self.join = Block(several, width, key=join_key) if self.images else None

    def __call__(self, row: jax.Array, begin: jax.Array) -> jax.Array:
        """A row as `Mixed` describes it, symbols one-hot, and its begin flag, a bool scalar → features (width,)."""
        features, start = [], 0
        for shape, encoder in zip(self.layout.images, self.images, strict=True):
            stop = start + math.prod(shape)
            features.append(encoder(row[start:stop].reshape(shape), begin))
            start = stop
        if self.vector is not None:
            features.append(self.vector(jnp.append(row[start:], begin.astype(row.dtype))))
        return features[0] if self.join is None else self.join(jnp.concatenate(features))


def encoder_of(shape: ObservationShape, width: int, *, key: jax.Array) -> Block | ConvEncoder | MixedEncoder:
    """The encoder for observations of this shape. Raises `ValueError` if there is none, or an image is too small."""
    match shape:
        case Mixed():
            return MixedEncoder(shape, width, key=key)
        case int(size) | (size,):
            return Block(size + 1, width, key=key)
        case (_, _, _):
            return ConvEncoder(shape, width, key=key)
    raise ValueError(f"no encoder for observations of shape {shape}: supported are vectors (n,) and images (H, W, C)")
