"""Layers that memory models and networks share: blocks, norms and gates. Every module acts on one vector."""

import equinox as eqx
import jax
import jax.numpy as jnp


def layer_norm(x: jax.Array) -> jax.Array:
    """Layer normalisation of a vector (n,), without parameters, at every finite magnitude (Ba et al. 2016)."""
    limits = jnp.finfo(x.dtype)
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x)))
    # Beyond this, squares could overflow, and ε is negligible; below it, a division by 1 keeps the bits. The reciprocal
    # of the largest number itself would be subnormal, which counts as 0.
    large = largest > float(limits.max) ** 0.25
    x = x / jnp.where(large, largest / 16, 1)
    centred = x - jnp.mean(x)
    epsilon = jnp.where(large, float(limits.tiny), 1e-5).astype(x.dtype)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred)) + epsilon)


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


class GatedResidual(eqx.Module):
    """The layer around the recurrence of a deep state-space model: pre-norm, skip, GELU, gated linear unit, residual.

    `enter` is applied before the recurrence and `leave` after it. The residual is projected if the widths differ.
    Source: Orvieto et al. 2023, Smith et al. 2023.
    """

    project: eqx.nn.Linear | None
    skip: jax.Array
    gate: eqx.nn.Linear

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array):
        project_key, skip_key, gate_key = jax.random.split(key, 3)
        same = input_size == output_size
        self.project = None if same else eqx.nn.Linear(input_size, output_size, dtype=jnp.float32, key=project_key)
        self.skip = jax.random.normal(skip_key, (output_size,), jnp.float32)
        self.gate = eqx.nn.Linear(output_size, 2 * output_size, dtype=jnp.float32, key=gate_key)

    def _residual(self, x: jax.Array) -> jax.Array:
        return x if self.project is None else self.project(x)

    def enter(self, x: jax.Array) -> jax.Array:
        """The input of the recurrence, (output_size,): the normalised residual of the layer's input x (input_size,)."""
        return layer_norm(self._residual(x))

    def leave(self, y: jax.Array, x: jax.Array) -> jax.Array:
        """The output of the layer, (output_size,), given the output y (output_size,) of the recurrence and its input x.

        v ⊙ σ(g) plus the residual, where (v, g) is a linear map of GELU(y + D ⊙ enter(x)) and D the skip weights.
        """
        y = jax.nn.gelu(y + self.skip * self.enter(x))
        value, gate = jnp.split(self.gate(y), 2)
        return self._residual(x) + value * jax.nn.sigmoid(gate)


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
