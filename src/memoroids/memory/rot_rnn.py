"""RotRNN, a linear recurrence of rotations with one decay for each head (Biegun et al. 2024)."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.memory.layers import GatedResidual, complex64
from memoroids.memory.memoroid import LinearMemoroid, check_sizes


class RotRNN(LinearMemoroid):
    """One layer of rotations: in each head h_t = γ P Θ Pᵀ h_{t-1} + ξ B u_t, and y_t = C [h of all heads] + D ⊙ u_t.

    γ = exp(-exp ν) is a number in (0, 1), P = exp(M - Mᵀ) is orthogonal, Θ turns pairs of coordinates by angles θ, and
    ξ = √((1 - γ²) / tr(BᵀB)) keeps the expected squared norm of a head's state at 1 under white input. The recurrence
    runs in the basis of P, where a pair of coordinates is a complex number: Pᵀh_t = γ exp(iθ) Pᵀh_{t-1} + ξ PᵀB u_t.
    u, GELU, gate and residual are those of `GatedResidual`.

    State: complex64 (heads, head_size / 2), the pairs of Pᵀh. As in the authors' code, θ starts uniformly within 0 and
    `max_phase`, -log γ log-uniformly between those of `gamma_min` and `gamma_max`, M as standard normals, and B and C
    as normals of variance 1 / (output_size + heads head_size). Published sizes and ranges of γ depend on the task; by
    default states decay within 1 to 1,000 steps. Raises `ValueError` unless 0 < gamma_min < gamma_max < 1,
    0 < max_phase <= 2π, head_size is even, and sizes are at least 1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    theta: jax.Array
    nu: jax.Array
    m: jax.Array
    b: jax.Array
    c: jax.Array
    surround: GatedResidual

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        heads: int = 16,
        head_size: int = 8,
        gamma_min: float = 0.37,
        gamma_max: float = 0.999,
        max_phase: float = 2 * math.pi,
    ):
        if not 0.0 < gamma_min < gamma_max < 1.0:
            raise ValueError(
                f"RotRNN: needs 0 < gamma_min < gamma_max < 1, got gamma_min={gamma_min}, gamma_max={gamma_max}"
            )
        if not 0.0 < max_phase <= 2 * math.pi:
            raise ValueError(f"RotRNN: needs 0 < max_phase <= 2π, got max_phase={max_phase}")
        check_sizes("RotRNN", input_size=input_size, output_size=output_size, heads=heads, head_size=head_size)
        if head_size % 2:
            raise ValueError(f"RotRNN: head_size must be even, since pairs are rotated, got head_size={head_size}")
        self.input_size, self.output_size = input_size, output_size
        theta_key, gamma_key, m_key, b_key, c_key, surround_key = jax.random.split(key, 6)
        self.theta = jax.random.uniform(theta_key, (heads, head_size // 2), jnp.float32, maxval=max_phase)
        slow, fast = (math.log(-math.log(gamma)) for gamma in (gamma_max, gamma_min))
        self.nu = jax.random.uniform(gamma_key, (heads,), jnp.float32, minval=slow, maxval=fast)
        self.m = jax.random.normal(m_key, (heads, head_size, head_size), jnp.float32)
        scale = 1 / math.sqrt(output_size + heads * head_size)
        self.b = scale * jax.random.normal(b_key, (heads, head_size, output_size), jnp.float32)
        self.c = scale * jax.random.normal(c_key, (output_size, heads * head_size), jnp.float32)
        self.surround = GatedResidual(input_size, output_size, key=surround_key)

    def _gamma(self) -> jax.Array:
        return jnp.exp(-jnp.exp(self.nu.astype(jnp.float32)))

    def _basis(self) -> jax.Array:
        """P, float32 (heads, head_size, head_size)."""
        m = self.m.astype(jnp.float32)
        return jax.scipy.linalg.expm(m - jnp.swapaxes(m, 1, 2))

    def decay(self) -> jax.Array:
        """γ exp(iθ), complex64 (heads, head_size / 2)."""
        theta, gamma = self.theta.astype(jnp.float32), self._gamma()[:, None]
        return complex64(gamma * jnp.cos(theta), gamma * jnp.sin(theta))

    def drive(self, x: jax.Array, begin: jax.Array) -> jax.Array:
        """ξ PᵀB u in pairs, with u the normalised input."""
        del begin
        b = self.b.astype(jnp.float32)
        # 1 - γ² = -expm1(-2 exp ν), which does not cancel near γ = 1.
        kept = -jnp.expm1(-2 * jnp.exp(self.nu.astype(jnp.float32)))
        xi = jnp.sqrt(kept / jnp.sum(jnp.square(b), axis=(1, 2)))
        # The product of parameters comes first, so that over a sequence it is computed once.
        turned = jnp.swapaxes(self._basis(), 1, 2) @ (xi[:, None, None] * b)
        pairs = (turned @ self.surround.enter(x).astype(jnp.float32)).reshape(*self.theta.shape, 2)
        return complex64(pairs[..., 0], pairs[..., 1])

    def readout(self, h: jax.Array, x: jax.Array, begin: jax.Array) -> jax.Array:
        """gate(C P [pairs of h] + D ⊙ u), with the residual connection."""
        del begin
        heads, size, _ = self.m.shape
        turned = jnp.einsum("ohi,hij->ohj", self.c.reshape(-1, heads, size), self._basis()).reshape(self.c.shape)
        return self.surround.leave(turned @ jnp.stack((h.real, h.imag), axis=-1).ravel(), x)
