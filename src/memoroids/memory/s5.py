"""The simplified structured state-space layer, S5 (Smith et al. 2023; Morad et al. 2024, G.2)."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.memory.layers import ComplexLinear, GatedResidual, RealPart, complex64
from memoroids.memory.memoroid import LinearMemoroid, check_sizes


def hippo_normal(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real and positive imaginary parts (size // 2,) of the eigenvalues of HiPPO-N, and eigenvectors (size, size // 2).

    HiPPO-N is the normal part of HiPPO-LegS, S - I/2 with S_nk = -√(n + ½) √(k + ½) for n > k and S = -Sᵀ (Gu et al.
    2022). Its eigenvalues come in conjugate pairs, of which the one with positive imaginary part is kept.
    """
    scale = np.sqrt(np.arange(size) + 0.5)
    lower = np.tril(np.outer(scale, scale), -1)
    # i S is Hermitian, so its eigenvectors are exactly orthonormal. They are those of S, whose eigenvalues are -i w.
    w, vectors = np.linalg.eigh(1j * (lower.T - lower))
    keep = np.argsort(w)[: size // 2]
    return np.full(size // 2, -0.5), -w[keep], vectors[:, keep]


def expm1_over(z: jax.Array) -> jax.Array:
    """(exp(z) - 1) / z of a complex array, 1 at 0; it and its derivatives are accurate at every magnitude."""
    near = jnp.abs(z) < 1
    small, large = jnp.where(near, z, 0), jnp.where(near, 1, z)
    # The derivative of expm1(z) / z is a difference of nearly equal numbers near 0; that of the power series is not.
    series = jnp.polyval(jnp.asarray([1 / math.factorial(n + 1) for n in range(12, -1, -1)], z.dtype), small)
    return jnp.where(near, series, jnp.expm1(large) / large)


class S5(LinearMemoroid):
    """One layer with a discretised diagonal state space: h_t = Λ̄ ⊙ h_{t-1} + B̄ o_t, s = gate(2 Re(C h) + D ⊙ o).

    (a, x) • (a', x') = (a' a, a' x + x') with a = Λ̄ = exp(ΛΔ), B̄ = Λ⁻¹(Λ̄ - I)B (zero-order hold), Re Λ = -exp(·) < 0.
    `gate` and the normalisation of o are those of `GatedResidual`.

    State: complex64 (state_size,), one of each conjugate pair of a real state of twice that size. `dt_min`, `dt_max`:
    the range in which the step sizes Δ are initialised, log-uniformly; by default states decay within 1 to 1,000 steps.
    `blocks`: Λ is initialised with the eigenvalues of this number of equal HiPPO-N blocks, so that more of the state
    oscillates slowly (Smith et al. 2023); None: state_size, with one conjugate pair in each. `unit_variance`: B is
    initialised so that under white input all components of the state have the same variance, as γ does in the LRU;
    without it, components with a small step size start small. Published are step sizes from 0.001 to 0.1, one block,
    and no unit variance; the defaults are ours.

    B and C are drawn in the real basis of HiPPO-N and transformed to that of its eigenvectors, D and Δ as in Smith et
    al. 2023, Appendix B. Ours are: Re Λ as -exp(·); normals of variance 1 / output_size for B and 1 / (2 state_size)
    for C, where the authors' code truncates them, and scales B by the size of the state.

    Raises `ValueError` unless 0 < dt_min < dt_max, both finite, `blocks` divides `state_size`, and sizes are at least
    1.
    """

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)
    lambda_re_log: jax.Array
    lambda_im: jax.Array
    dt_log: jax.Array
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
        dt_min: float = 2e-3,
        dt_max: float = 2.0,
        blocks: int | None = None,
        unit_variance: bool = True,
    ):
        blocks = state_size if blocks is None else blocks
        if not 0.0 < dt_min < dt_max < math.inf:
            raise ValueError(
                f"S5: the step sizes need 0 < dt_min < dt_max, both finite, got dt_min={dt_min}, dt_max={dt_max}"
            )
        check_sizes("S5", input_size=input_size, output_size=output_size, state_size=state_size, blocks=blocks)
        if state_size % blocks:
            raise ValueError(f"S5: blocks must divide state_size, got blocks={blocks} and state_size={state_size}")
        self.input_size, self.output_size = input_size, output_size
        dt_key, b_key, c_key, surround_key = jax.random.split(key, 4)
        real, imag, vectors = hippo_normal(2 * state_size // blocks)
        self.lambda_re_log = jnp.log(jnp.asarray(np.tile(-real, blocks), jnp.float32))
        self.lambda_im = jnp.asarray(np.tile(imag, blocks), jnp.float32)
        low, high = math.log(dt_min), math.log(dt_max)
        self.dt_log = jax.random.uniform(dt_key, (state_size,), jnp.float32, minval=low, maxval=high)
        basis = jnp.asarray(np.kron(np.eye(blocks), vectors), jnp.complex64)
        b = jax.random.normal(b_key, (2 * state_size, output_size), jnp.float32) / math.sqrt(output_size)
        c = jax.random.normal(c_key, (output_size, 2 * state_size), jnp.float32) / math.sqrt(2 * state_size)
        start = basis.conj().T @ b.astype(jnp.complex64)
        if unit_variance:
            variance = -jnp.expm1(-2 * jnp.exp(self.lambda_re_log + self.dt_log))
            gain = jnp.sqrt(variance) / jnp.abs(self._hold())
            start = start * gain[:, None].astype(jnp.complex64)
        self.b = ComplexLinear(start)
        self.c = RealPart(c.astype(jnp.complex64) @ basis)
        self.surround = GatedResidual(input_size, output_size, key=surround_key)

    def _eigenvalues(self) -> jax.Array:
        return complex64(-jnp.exp(self.lambda_re_log.astype(jnp.float32)), self.lambda_im)

    def _step_sizes(self) -> jax.Array:
        return jnp.exp(self.dt_log.astype(jnp.float32)).astype(jnp.complex64)

    def _hold(self) -> jax.Array:
        """Λ⁻¹(Λ̄ - I), the factor of the zero-order hold."""
        dt = self._step_sizes()
        return dt * expm1_over(self._eigenvalues() * dt)

    def decay(self) -> jax.Array:
        """Λ̄ = exp(ΛΔ), complex64 (state_size,)."""
        return jnp.exp(self._eigenvalues() * self._step_sizes())

    def drive(self, x: jax.Array, begin: jax.Array) -> jax.Array:
        """B̄ o, with o the normalised input."""
        del begin
        return self._hold() * self.b(self.surround.enter(x))

    def readout(self, h: jax.Array, x: jax.Array, begin: jax.Array) -> jax.Array:
        """gate(2 Re(C h) + D ⊙ o), with the residual connection."""
        del begin
        return self.surround.leave(2 * self.c(h), x)
