"""Layer normalisation at every finite magnitude."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.memory.layers import inverse_softplus, layer_norm, rotate


def by_formula(x):
    x = np.asarray(x, np.float64)
    centred = x - x.mean()
    return centred / np.sqrt(np.mean(centred**2) + 1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-3, 1.0, 1e3, 4e9, 5e9, 1e19, 1.8e19, 1e20, 1e30, 1e38])
@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_layer_norm_equals_the_formula_at_every_magnitude_with_its_gradient(scale, offset, rng):
    x, weight = rng.standard_normal(7).astype(np.float32), rng.standard_normal(7)
    x = np.clip(x, -1, 1) * np.float32(scale) + np.float32(offset * scale)
    np.testing.assert_allclose(layer_norm(jnp.asarray(x)), by_formula(x), rtol=1e-5, atol=1e-6)
    if scale > 1e30:
        return  # the gradient is below the smallest normal number
    gradient = jax.grad(lambda x: jnp.sum(layer_norm(x) * jnp.asarray(weight, jnp.float32)))(jnp.asarray(x))
    y, spread = by_formula(x), np.sqrt(np.var(np.asarray(x, np.float64)) + 1e-5)
    expected = (weight - weight.mean() - y * np.mean(weight * y)) / spread
    np.testing.assert_allclose(np.asarray(gradient, np.float64) * spread, expected * spread, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e10, 3e38])
def test_equal_numbers_are_normalised_to_zeros(value):
    np.testing.assert_allclose(layer_norm(jnp.full(4, value)), 0, atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows(bad):
    assert np.isnan(layer_norm(jnp.asarray([1.0, bad, 2.0]))).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_layer_norm_keeps_the_dtype(dtype):
    x = jnp.asarray([100.0, 200.0, -300.0, 50.0], dtype)
    y = layer_norm(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(np.asarray(y, np.float32), by_formula(x), rtol=0.03, atol=0.03)


def test_the_inverse_of_softplus_holds_over_all_step_sizes():
    steps = jnp.asarray([1e-6, 1e-3, 0.1, 1.0, 50.0])
    np.testing.assert_allclose(jax.nn.softplus(inverse_softplus(steps)), steps, rtol=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 1_000, 100_000, 16_000_000])
def test_rotations_stay_exact_however_long_the_episode(steps, rng):
    x = rng.standard_normal((3, 9)).astype(np.float32)
    turned = rotate(x, jnp.full(3, steps, jnp.float32))
    angle = steps * 10_000.0 ** (-2 * np.arange(4) / 8)
    pairs = (x[:, :4] + 1j * x[:, 4:8]) * np.exp(1j * angle)
    # Half a unit of 2^-32 of a circle a step.
    tolerance = 2e-6 + steps * np.pi * 2.0**-32 * 4
    np.testing.assert_allclose(turned, np.concatenate((pairs.real, pairs.imag, x[:, 8:]), axis=1), atol=tolerance)


def test_scores_depend_on_the_distance_of_key_and_query_alone(rng):
    query, key = rng.standard_normal((2, 8)).astype(np.float32)

    def score(at, distance):
        turns = [jnp.asarray(n, jnp.float32) for n in (at + distance, at)]
        return np.dot(rotate(query, turns[0]), rotate(key, turns[1]))

    for distance in (0, 1, 7):
        np.testing.assert_allclose(score(90_000, distance), score(0, distance), atol=2e-3)
    assert abs(score(0, 7) - score(0, 1)) > 0.01
