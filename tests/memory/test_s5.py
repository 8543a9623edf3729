"""The zero-order hold of S5 against quadrature in double precision."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.memory import S5
from memoroids.memory.s5 import expm1_over

NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2


def integral(z, power=0):
    """∫ s^power exp(s z) ds over [0, 1], which nowhere subtracts: (exp(z) - 1) / z and, for power 1, its derivative."""
    return np.exp(np.asarray(z, np.complex128)[..., None] * NODES) @ (WEIGHTS * NODES**power)


def worst(got, want):
    return np.max(np.abs(np.asarray(got, np.complex128) - want) / np.abs(want))


EIGENVALUES = np.array([-0.5 + 0.3j, -0.5 + 3j, -0.5 + 40j, -4 + 0.01j, -1e-3 + 1j])
Z = (EIGENVALUES[:, None] * np.logspace(-8, 0, 17)).ravel().astype(np.complex64)


def test_expm1_over_and_its_first_two_derivatives_are_accurate_at_every_magnitude():
    def derivative(f):
        return jax.grad(f, holomorphic=True)

    functions = expm1_over, derivative(expm1_over), derivative(derivative(expm1_over))
    for power, f in enumerate(functions):
        assert worst(jax.jit(jax.vmap(f))(Z), integral(Z, power)) < 1e-6 * 3**power, power


def test_expm1_over_is_1_at_0_with_the_slope_of_its_series():
    assert complex(expm1_over(jnp.zeros((), jnp.complex64))) == 1
    assert complex(jax.grad(expm1_over, holomorphic=True)(jnp.zeros((), jnp.complex64))) == 0.5


@pytest.mark.parametrize("dt", [1e-8, 1e-6, 1e-4, 1e-2, 1.0])
def test_the_zero_order_hold_is_accurate_for_every_step_size_with_its_gradients(dt):
    memory = S5(3, 4, key=jax.random.key(0), state_size=8, blocks=4, dt_min=dt / 2, dt_max=dt)
    step = np.exp(np.asarray(memory.dt_log, np.float64))
    eigenvalues = np.asarray(memory._eigenvalues(), np.complex128)
    assert worst(memory._hold(), step * integral(eigenvalues * step)) < 1e-6

    def parts(re_log, im, dt_log):
        model = eqx.tree_at(lambda m: (m.lambda_re_log, m.lambda_im, m.dt_log), memory, (re_log, im, dt_log))
        return jnp.sum(jnp.real(model._hold()))

    by_re, by_im, by_dt = jax.grad(parts, argnums=(0, 1, 2))(memory.lambda_re_log, memory.lambda_im, memory.dt_log)
    slope = step**2 * integral(eigenvalues * step, 1)
    largest = np.abs(slope)
    assert np.all(np.abs(by_re - (slope * eigenvalues.real).real) < 3e-6 * largest * np.abs(eigenvalues.real))
    assert np.all(np.abs(by_im - (slope * 1j).real) < 3e-6 * largest)
    assert np.all(np.abs(by_dt - (np.exp(eigenvalues * step) * step).real) < 3e-6 * step)


def test_with_unit_variance_small_step_sizes_start_with_the_gain_of_double_precision():
    build = {"state_size": 64, "dt_min": 1e-8, "dt_max": 1e-6, "blocks": 32}
    plain, unit = (S5(3, 4, key=jax.random.key(0), unit_variance=u, **build) for u in (False, True))
    gain = np.asarray(unit.b.weight, np.float64) / np.asarray(plain.b.weight, np.float64)
    step, eigenvalues = np.exp(np.asarray(plain.dt_log, np.float64)), np.asarray(plain._eigenvalues(), np.complex128)
    expected = np.sqrt(-np.expm1(2 * eigenvalues.real * step)) / np.abs(step * integral(eigenvalues * step))
    np.testing.assert_allclose(gain, np.tile(expected, 2)[:, None] * np.ones(4), rtol=1e-5)
