"""The Linear Recurrent Unit (Orvieto et al. 2023; Morad et al. 2024, G.3)."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from memoroids.memory.layers import ComplexLinear, GatedResidual, RealPart, complex64
from memoroids.memory.memoroid import LinearMemoroid, check_sizes

LONGEST = 1_000.0
"""The longest decay time 1 / -log|λ| with which an LRU starts, in steps."""


class LRU(LinearMemoroid):
    """One layer with a complex diagonal recurrence: h_t = λ ⊙ h_{t-1} + exp(γ_log) ⊙ B o_t, s = gate(Re(C h) + D ⊙ o).

    (a, x) • (a', x') = (a' a, a' x + x') with a = λ = exp(-exp ν + i exp θ), so |λ| < 1 by construction. `gate` and the
    normalisation of o are those of `GatedResidual`.

    State: complex64 (state_size,). λ is initialised as published: uniformly over the area of the ring between the radii
    `r_min` and `r_max` (by default 0 and 1), with phases up to `max_phase` (by default 2π). If none of the three is
    given, this holds for every other λ only, which sees fast changes. The rest start as exp((-1 + iφ) / τ), with τ
    spread geometrically from 1 to 1,000 steps and φ drawn uniformly from (0, π), since it is not known how far back a
    task looks (the choice is ours). The real and imaginary parts of B start with variance 1 / (2 output_size), those of
    C with 1 / state_size, and D and γ as in Orvieto et al. 2023, Appendix A. Raises `ValueError` unless
    0 <= r_min < r_max <= 1, 0 < max_phase <= 2π, and sizes are at least 1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    nu: jax.Array
    theta: jax.Array
    gamma_log: jax.Array
    b: ComplexLinear
    c: RealPart
    surround: GatedResidual

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        state_size: int = 128,
        r_min: float | None = None,
        r_max: float | None = None,
        max_phase: float | None = None,
    ):
        spread = r_min is None and r_max is None and max_phase is None
        r_min, r_max = 0.0 if r_min is None else r_min, 1.0 if r_max is None else r_max
        max_phase = 2 * math.pi if max_phase is None else max_phase
        if not 0.0 <= r_min < r_max <= 1.0:
            raise ValueError(f"LRU: the ring needs 0 <= r_min < r_max <= 1, got r_min={r_min}, r_max={r_max}")
        if not 0.0 < max_phase <= 2 * math.pi:
            raise ValueError(f"LRU: needs 0 < max_phase <= 2π, got max_phase={max_phase}")
        check_sizes("LRU", input_size=input_size, output_size=output_size, state_size=state_size)
        self.input_size, self.output_size = input_size, output_size
        radius_key, phase_key, b_key, c_key, surround_key = jax.random.split(key, 5)
        phase = jax.random.uniform(phase_key, (state_size,), jnp.float32, minval=1e-4, maxval=1.0)
        # Uniform over the area of the ring; the margins keep ν finite if a draw falls on either edge.
        u = jax.random.uniform(radius_key, (state_size,), jnp.float32, minval=1e-4, maxval=1 - 1e-4)
        radius_squared = u * (r_max**2 - r_min**2) + r_min**2
        nu, theta = jnp.log(-0.5 * jnp.log(radius_squared)), jnp.log(phase * max_phase)
        if spread:
            log_steps = jnp.linspace(0.0, math.log(LONGEST), state_size, dtype=jnp.float32)
            slow = jnp.arange(state_size) % 2 == 0
            nu = jnp.where(slow, -log_steps, nu)
            theta = jnp.where(slow, jnp.log(math.pi * phase) - log_steps, theta)
        self.nu, self.theta = nu, theta
        self.gamma_log = 0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(self.nu)))
        # A complex normal of JAX has variance 1/2 in each of its two parts.
        b, c = (
            jax.random.normal(k, shape, jnp.complex64)
            for k, shape in ((b_key, (state_size, output_size)), (c_key, (output_size, state_size)))
        )
        self.b, self.c = ComplexLinear(b / math.sqrt(output_size)), RealPart(c * math.sqrt(2 / state_size))
        self.surround = GatedResidual(input_size, output_size, key=surround_key)

    def decay(self) -> jax.Array:
        """λ = exp(-exp ν + i exp θ), complex64 (state_size,)."""
        nu, theta = (part.astype(jnp.float32) for part in (self.nu, self.theta))
        return jnp.exp(complex64(-jnp.exp(nu), jnp.exp(theta)))

    def drive(self, x: jax.Array, begin: jax.Array) -> jax.Array:
        """exp(γ_log) ⊙ B o, with o the normalised input."""
        del begin
        return jnp.exp(self.gamma_log).astype(jnp.complex64) * self.b(self.surround.enter(x))

    def readout(self, h: jax.Array, x: jax.Array, begin: jax.Array) -> jax.Array:
        """gate(Re(C h) + D ⊙ o), with the residual connection."""
        del begin
        return self.surround.leave(self.c(h), x)
