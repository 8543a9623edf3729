"""Products under a mask: values, derivatives, and that nothing left out by the mask reaches a result."""

import functools

import jax
import numpy as np
import pytest

from memoroids.algebra.masked_products import masked_scores, masked_sum

MASK = np.array([[1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0]], bool)


def scores(mask, rows, columns):
    return np.array([[rows[t] @ columns[s] if mask[t, s] else 0 for s in range(4)] for t in range(3)])


def sums(mask, weights, values):
    return np.array([sum(weights[t, s] * values[s] for s in range(4) if mask[t, s]) for t in range(3)])


PRODUCTS = {"scores": (masked_scores, scores, ((3, 2), (4, 2))), "sum": (masked_sum, sums, ((3, 4), (4, 2)))}
each_product = pytest.mark.parametrize("name", PRODUCTS)


def arrays(name, rng):
    return [rng.standard_normal(shape).astype(np.float32) for shape in PRODUCTS[name][2]]


@functools.partial(jax.jit, static_argnums=0)
def value_and_cotangents(product, mask, left, right, bar):
    out, transpose = jax.vjp(functools.partial(product, mask), left, right)
    return out, transpose(bar)


@each_product
def test_values_and_derivatives_of_both_modes_equal_the_definition(name, rng):
    product, definition, _ = PRODUCTS[name]
    (left, right), (left_dot, right_dot) = arrays(name, rng), arrays(name, rng)
    expected = definition(MASK, left, right)
    bar = rng.standard_normal(expected.shape).astype(np.float32)
    out, bars = value_and_cotangents(product, MASK, left, right, bar)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
    _, dot = jax.jvp(functools.partial(product, MASK), (left, right), (left_dot, right_dot))
    change = definition(MASK, left_dot, right) + definition(MASK, left, right_dot)
    np.testing.assert_allclose(dot, change, rtol=1e-5, atol=1e-5)
    paired = sum(np.sum(b * d) for b, d in zip(bars, (left_dot, right_dot), strict=True))
    np.testing.assert_allclose(paired, np.sum(bar * change), rtol=1e-4, atol=1e-4)


@each_product
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_only_what_the_mask_pairs_it_with(name, poison, rng):
    product, _, _ = PRODUCTS[name]
    left, right = arrays(name, rng)
    bar = rng.standard_normal(np.shape(product(MASK, left, right))).astype(np.float32)
    clean, (left_clean, right_clean) = value_and_cotangents(product, MASK, left, right, bar)
    for s in range(4):
        bad = right.copy()
        bad[s] = poison
        out, (left_bar, right_bar) = value_and_cotangents(product, MASK, left, bad, bar)
        unpaired = ~MASK[:, s]
        np.testing.assert_array_equal(out[unpaired], clean[unpaired])
        assert not np.isfinite(out[MASK[:, s]]).all(axis=1).any()
        np.testing.assert_array_equal(left_bar[unpaired], left_clean[unpaired])
        np.testing.assert_array_equal(right_bar, right_clean)
    for t in range(3):
        bad = bar.copy()
        bad[t] = poison
        _, (left_bar, right_bar) = value_and_cotangents(product, MASK, left, right, bad)
        np.testing.assert_array_equal(np.delete(left_bar, t, 0), np.delete(left_clean, t, 0))
        np.testing.assert_array_equal(right_bar[~MASK[t]], right_clean[~MASK[t]])
        assert not np.isfinite(right_bar[MASK[t]]).all(axis=1).any()
