"""Linear maps with a transposition of their own: which one runs, over batches, and in derivatives of derivatives."""

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.algebra.linear_map import linear_map


def scaled(factor, residuals, tangents):
    (weight,), (x, y) = residuals, tangents
    return weight * x + factor * y, jnp.sum(x)


def transposed(factor, residuals, cotangents):
    """That of `scaled`, except for a mark that tells that it ran."""
    (weight,), (first, second) = residuals, cotangents
    return weight * first + second + MARK, factor * first


MARK = 1000.0
WEIGHT, X, Y = (np.arange(1, 4, dtype=np.float32) * n for n in (1, 2, 3))


def mapped(weight, x, y):
    return linear_map(scaled, transposed, (2.0,), (weight,), (x, y))


def test_it_computes_the_one_function_and_is_transposed_as_told():
    first, second = jax.jit(mapped)(WEIGHT, X, Y)
    np.testing.assert_array_equal(first, WEIGHT * X + 2 * Y)
    assert second == X.sum()
    _, pull = jax.vjp(lambda x, y: mapped(WEIGHT, x, y), X, Y)
    x_bar, y_bar = pull((jnp.asarray(Y), jnp.asarray(5.0)))
    np.testing.assert_array_equal(x_bar, WEIGHT * Y + 5 + MARK)
    np.testing.assert_array_equal(y_bar, 2 * Y)


def test_over_a_batch_what_is_shared_is_shared_and_its_cotangents_are_summed():
    batch = np.stack((X, 2 * X))

    def total(x, y):
        first, second = jax.vmap(mapped, in_axes=(None, 0, None))(WEIGHT, x, y)
        return jnp.sum(first) + jnp.sum(second)

    np.testing.assert_array_equal(total(batch, Y), (WEIGHT * batch + 2 * Y).sum() + batch.sum())
    x_bar, y_bar = jax.grad(total, argnums=(0, 1))(batch, Y)
    np.testing.assert_array_equal(x_bar, np.broadcast_to(WEIGHT + 1 + MARK, (2, 3)))
    np.testing.assert_array_equal(y_bar, np.full(3, 4.0))


def test_its_derivative_by_what_it_is_not_linear_in_is_that_of_the_function():
    _, (first, second) = jax.jvp(lambda weight: mapped(weight, X, Y), (WEIGHT,), (Y,))
    np.testing.assert_array_equal(first, Y * X)
    assert second == 0
    batch = np.stack((WEIGHT, 2 * WEIGHT))
    jacobian = jax.vmap(jax.jacfwd(lambda weight: mapped(weight, X, Y)[0]))(batch)
    np.testing.assert_array_equal(jacobian, np.stack([np.diag(X)] * 2))
