"""S4D: both published initialisations, and the convolution that its recurrence is equal to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.memory import S4D


@pytest.mark.parametrize(
    ("start", "expected"),
    # N = 6: π n, and (6/π) (6 / (2n + 1) - 1).
    [("lin", [0, np.pi, 2 * np.pi]), ("inv", [30 / np.pi, 6 / np.pi, 6 / np.pi * 0.2])],
)
def test_eigenvalues_start_as_published(start, expected: list[float]):
    memory = S4D(2, 3, key=jax.random.key(0), state_size=3, start=start)
    np.testing.assert_allclose(memory.a_im, np.tile(expected, (3, 1)), rtol=1e-6)
    np.testing.assert_allclose(-np.exp(memory.a_re_log), -0.5, rtol=1e-6)
    assert np.all(np.abs(memory.decay()) < 1)


def test_the_state_is_the_convolution_with_powers_of_the_decay():
    memory = S4D(3, 3, key=jax.random.key(1), state_size=2, dt_min=0.05, dt_max=0.5)
    x = jax.random.normal(jax.random.key(2), (6, 3))
    _, (h) = memory(x, jnp.arange(6) == 0)
    decay = np.asarray(memory.decay(), np.complex128)
    drive = np.asarray(jax.vmap(memory.drive)(x, jnp.arange(6) == 0), np.complex128)
    expected = sum(decay ** (5 - t) * drive[t] for t in range(6))
    np.testing.assert_allclose(h, expected, rtol=1e-5, atol=1e-6)
