"""Layers that memory models and networks share: blocks, norms and gates. Every module acts on one vector."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def layer_norm(x: jax.Array) -> jax.Array:
    """Layer normalisation of a vector (n,), without parameters, at every finite magnitude (Ba et al. 2016)."""
    limits = jnp.finfo(x.dtype)
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    # Beyond this, squares could overflow, and ε is negligible; below it, a product with 1 keeps the bits. The
    # reciprocal of the largest number itself would be subnormal, which counts as 0.
    large = largest > float(limits.max) ** 0.25
    x = x * (1 / jnp.where(large, largest / 16, 1))
    centred = x - jnp.mean(x)
    epsilon = jnp.where(large, float(limits.tiny), 1e-5).astype(x.dtype)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred)) + epsilon)


def rms_norm(x: jax.Array) -> jax.Array:
    """x (n,) divided by its root mean square, without parameters (Zhang & Sennrich 2019)."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x)) + 1e-5)


def unit(x: jax.Array) -> jax.Array:
    """x (n,) scaled to length 1, or shorter if x is near 0."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x)) + 1e-6)


def linear(inputs: int, outputs: int, key: jax.Array, *, bias: bool = False) -> eqx.nn.Linear:
    """A linear layer with float32 parameters, without a bias unless asked for."""
    return eqx.nn.Linear(inputs, outputs, use_bias=bias, dtype=jnp.float32, key=key)


def inverse_softplus(x: jax.Array) -> jax.Array:
    """log(exp(x) - 1) for x > 0."""
    return x + jnp.log(-jnp.expm1(-x))


def complex64(real: jax.Array, imag: jax.Array) -> jax.Array:
    """real + i imag, complex64, of two real arrays of any dtype, such as the bfloat16 of parameters."""
    return jax.lax.complex(real.astype(jnp.float32), imag.astype(jnp.float32))


class Block(eqx.Module):
    """Linear layer, parameter-free layer norm, leaky ReLU: (input_size,) → (output_size,) (Morad et al. 2024, H)."""

    linear: eqx.nn.Linear

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array):
        self.linear = eqx.nn.Linear(input_size, output_size, dtype=jnp.float32, key=key)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The features (output_size,) of x (input_size,)."""
        return jax.nn.leaky_relu(layer_norm(self.linear(x)))


class Residual(eqx.Module):
    """What surrounds a layer: layer norm before it and a residual past it, which is projected if the widths differ."""

    project: eqx.nn.Linear | None

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array):
        same = input_size == output_size
        self.project = None if same else linear(input_size, output_size, key, bias=True)

    def shortcut(self, x: jax.Array) -> jax.Array:
        """The residual of x (input_size,): x itself or its projection, (output_size,)."""
        return x if self.project is None else self.project(x)

    def enter(self, x: jax.Array) -> jax.Array:
        """What the layer inside takes, (output_size,): the normalised residual of x (input_size,)."""
        return layer_norm(self.shortcut(x))

    def leave(self, y: jax.Array, x: jax.Array) -> jax.Array:
        """The output y (output_size,) of the layer inside plus the residual of its input x."""
        return self.shortcut(x) + y


class GatedResidual(Residual):
    """The layer around the recurrence of a deep state-space model: pre-norm, skip, GELU, gated linear unit, residual.

    `enter` is applied before the recurrence and `leave` after it. The residual is projected if the widths differ.
    Source: Orvieto et al. 2023, Smith et al. 2023.
    """

    skip: jax.Array
    gate: eqx.nn.Linear

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array):
        project_key, skip_key, gate_key = jax.random.split(key, 3)
        super().__init__(input_size, output_size, key=project_key)
        self.skip = jax.random.normal(skip_key, (output_size,), jnp.float32)
        self.gate = eqx.nn.Linear(output_size, 2 * output_size, dtype=jnp.float32, key=gate_key)

    def leave(self, y: jax.Array, x: jax.Array) -> jax.Array:
        """The output of the layer, (output_size,), given the output y (output_size,) of the recurrence and its input x.

        v ⊙ σ(g) plus the residual, where (v, g) is a linear map of GELU(y + D ⊙ enter(x)) and D the skip weights.
        """
        y = jax.nn.gelu(y + self.skip * self.enter(x))
        value, gate = jnp.split(self.gate(y), 2)
        return super().leave(value * jax.nn.sigmoid(gate), x)


class FeedForward(eqx.Module):
    """W_o GELU(W_i x), or W_o(swish(W_g x) ⊙ W_i x) if `gated` (SwiGLU, Shazeer 2020): (size,) → (size,)."""

    w_i: eqx.nn.Linear
    w_g: eqx.nn.Linear | None
    w_o: eqx.nn.Linear

    def __init__(self, size: int, hidden_size: int, *, gated: bool, bias: bool, key: jax.Array):
        in_key, gate_key, out_key = jax.random.split(key, 3)
        self.w_i = linear(size, hidden_size, in_key, bias=bias)
        self.w_g = linear(size, hidden_size, gate_key, bias=bias) if gated else None
        self.w_o = linear(hidden_size, size, out_key, bias=bias)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The output (size,) of x (size,)."""
        hidden = self.w_i(x)
        return self.w_o(jax.nn.gelu(hidden) if self.w_g is None else jax.nn.silu(self.w_g(x)) * hidden)


class TransformerBlock(Residual):
    """What surrounds a mixer of time steps in a transformer: y = x + mixer(LN(x)), s = y + FFN(LN(y)).

    `enter` is applied before the mixer and `leave` after it; layer norms have no parameters. x is projected if the
    widths differ. Without `hidden_size` there is no feed-forward network: s = y. `gated` and `bias` are those of
    `FeedForward`.
    """

    feed_forward: FeedForward | None

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int | None = None,
        *,
        gated: bool = True,
        bias: bool = False,
        key: jax.Array,
    ):
        project_key, feed_key = jax.random.split(key)
        super().__init__(input_size, output_size, key=project_key)
        self.feed_forward = None
        if hidden_size is not None:
            self.feed_forward = FeedForward(output_size, hidden_size, gated=gated, bias=bias, key=feed_key)

    def leave(self, y: jax.Array, x: jax.Array) -> jax.Array:
        """The output of the layer, (output_size,), given the output y (output_size,) of the mixer and its input x."""
        y = super().leave(y, x)
        return y if self.feed_forward is None else y + self.feed_forward(layer_norm(y))


class ComplexLinear(eqx.Module):
    """B x: maps a real vector (input_size,) to a complex one (output_size,), by one real product for both parts."""

    weight: jax.Array

    def __init__(self, weight: jax.Array):
        """Stores B = `weight`, complex (output_size, input_size), as its real and imaginary parts."""
        self.weight = jnp.concatenate((weight.real, weight.imag))

    def __call__(self, x: jax.Array) -> jax.Array:
        """B x, complex64 (output_size,), of real x (input_size,)."""
        return complex64(*jnp.split(self.weight @ x, 2))


class RealPart(eqx.Module):
    """Re(C h): maps a complex vector (input_size,) to a real one (output_size,), by one real product for both parts."""

    weight: jax.Array

    def __init__(self, weight: jax.Array):
        """Stores C = `weight`, complex (output_size, input_size), as its real and negated imaginary parts."""
        self.weight = jnp.concatenate((weight.real, -weight.imag), axis=1)

    def __call__(self, h: jax.Array) -> jax.Array:
        """Re(C h), real (output_size,), of complex h (input_size,)."""
        return self.weight @ jnp.concatenate((h.real, h.imag))


def sinusoids(position: jax.Array, size: int) -> jax.Array:
    """sin(p / 10000^(2i/size)) for i < size/2, then as many cosines: float32 (size,), of an integer p.

    If `size` is odd, there is one cosine less. Source: Vaswani et al. 2017, Section 3.5.
    """
    waves = jnp.arange(-(-size // 2), dtype=jnp.float32)
    angle = position.astype(jnp.float32) * 10_000.0 ** (-2 * waves / size)
    return jnp.concatenate((jnp.sin(angle), jnp.cos(angle)))[:size]


def rotate(x: jax.Array, steps: jax.Array) -> jax.Array:
    """x (…, d) turned by `steps`, whole numbers like x without its last axis, times the angles θ_i = 10000^(-2i/d).

    Pair i is the entries i and i + ⌊d/2⌋; an odd last entry is not turned. Products of two rotated vectors depend on
    the distance of their positions only. Angles are counted in units of 2^-32 of a circle, so that multiples of them
    are taken modulo the circle without rounding. Source: Su et al. 2021, Equation 34.
    """
    pairs = x.shape[-1] // 2
    units = np.round(10_000.0 ** (-np.arange(pairs) / pairs) / (2 * np.pi) * 2**32).astype(np.uint32)
    turned = steps.astype(jnp.uint32)[..., None] * jnp.broadcast_to(units, (*steps.shape, pairs))
    angle = jax.lax.bitcast_convert_type(turned, jnp.int32).astype(jnp.float32) * np.float32(2 * np.pi / 2**32)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    one, two, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    return jnp.concatenate((cos * one - sin * two, sin * one + cos * two, rest), axis=-1)
