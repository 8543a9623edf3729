"""The diagonal structured state space S4D, with its two initialisations S4D-Lin and S4D-Inv (Gu et al. 2022)."""

import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.memory.layers import GatedResidual, complex64
from memoroids.memory.memoroid import LinearMemoroid, check_sizes
from memoroids.memory.s5 import expm1_over


def frequencies(start: str, size: int) -> np.ndarray:
    """Im A_n of N/2 = `size` eigenvalues: π n for "lin" and (N/π) (N / (2n + 1) - 1) for "inv" (Section 4)."""
    n = np.arange(size)
    return np.pi * n if start == "lin" else 2 * size / np.pi * (2 * size / (2 * n + 1) - 1)


class S4D(LinearMemoroid):
    """One layer with a state space of its own for each channel: h_t = Ā ⊙ h_{t-1} + B̄ u_t, y_t = 2 Re(Σ_n C_n h_tn).

    Ā = exp(ΔA) and B̄ = A⁻¹(Ā - 1) (zero-order hold) with A_n = -exp(·) + i ω_n; u is the normalised input, D ⊙ u, GELU,
    gate and residual are those of `GatedResidual`. B = 1, since only the product of B and C matters.

    State: complex64 (output_size, state_size), one of each conjugate pair of N = 2 state_size real numbers per channel.
    `start`: ω_n starts as π n ("lin") or (N/π) (N / (2n + 1) - 1) ("inv"). As published, Re A starts at -1/2, Δ
    log-uniformly within `dt_min` and `dt_max`, one for each channel, D as standard normals and C as complex normals of
    variance 1; the default state_size is half of the published 32. Raises `ValueError` unless 0 < dt_min < dt_max, both
    finite, `start` is one of these, and sizes are at least 1.
    """

    chunk: ClassVar[int | None] = 256

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    a_re_log: jax.Array
    a_im: jax.Array
    dt_log: jax.Array
    c_re: jax.Array
    c_im: jax.Array
    surround: GatedResidual

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        key: jax.Array,
        state_size: int = 16,
        start: Literal["lin", "inv"] = "lin",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ):
        if start not in ("lin", "inv"):
            raise ValueError(f"S4D: start must be lin or inv, got start={start!r}")
        if not 0.0 < dt_min < dt_max < math.inf:
            raise ValueError(
                f"S4D: the step sizes need 0 < dt_min < dt_max, both finite, got dt_min={dt_min}, dt_max={dt_max}"
            )
        check_sizes("S4D", input_size=input_size, output_size=output_size, state_size=state_size)
        self.input_size, self.output_size = input_size, output_size
        dt_key, c_key, surround_key = jax.random.split(key, 3)
        shape = output_size, state_size
        self.a_re_log = jnp.full(shape, math.log(0.5), jnp.float32)
        self.a_im = jnp.asarray(np.broadcast_to(frequencies(start, state_size), shape), jnp.float32)
        low, high = math.log(dt_min), math.log(dt_max)
        self.dt_log = jax.random.uniform(dt_key, (output_size,), jnp.float32, minval=low, maxval=high)
        # A complex normal of JAX has variance 1/2 in each of its two parts.
        c = jax.random.normal(c_key, shape, jnp.complex64)
        self.c_re, self.c_im = c.real, c.imag
        self.surround = GatedResidual(input_size, output_size, key=surround_key)

    def _step_sizes(self) -> jax.Array:
        return jnp.exp(self.dt_log.astype(jnp.float32)).astype(jnp.complex64)[:, None]

    def _exponent(self) -> jax.Array:
        """ΔA, complex64 (output_size, state_size)."""
        return self._step_sizes() * complex64(-jnp.exp(self.a_re_log.astype(jnp.float32)), self.a_im)

    def decay(self) -> jax.Array:
        """Ā = exp(ΔA), complex64 (output_size, state_size)."""
        return jnp.exp(self._exponent())

    def drive(self, x: jax.Array, begin: jax.Array) -> jax.Array:
        """B̄ u, with u the normalised input."""
        del begin
        hold = self._step_sizes() * expm1_over(self._exponent())
        return hold * self.surround.enter(x).astype(jnp.complex64)[:, None]

    def readout(self, h: jax.Array, x: jax.Array, begin: jax.Array) -> jax.Array:
        """gate(2 Re(C h) + D ⊙ u), with the residual connection."""
        del begin
        y = 2 * jnp.sum(self.c_re * h.real - self.c_im * h.imag, axis=1)
        return self.surround.leave(y, x)
