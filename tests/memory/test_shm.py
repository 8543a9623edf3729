"""Stable Hadamard Memory: all rows of θ are drawn, by the number of the step in its episode."""

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.memory import SHM
from memoroids.memory.shm import address


def test_rows_are_drawn_uniformly_and_independently_of_the_model():
    memory = SHM(2, 3, key=jax.random.key(0), memory_size=4, rows=8)
    rows = np.asarray(jax.vmap(memory.row)(jnp.arange(4_000)))
    counts = np.bincount(rows, minlength=8)
    assert counts.size == 8 and np.all(np.abs(counts - 500) < 5 * np.sqrt(500 * 7 / 8))
    other = SHM(2, 3, key=jax.random.key(9), memory_size=4, rows=8)
    np.testing.assert_array_equal(rows[:50], jax.vmap(other.row)(jnp.arange(50)))


def test_addresses_are_weights():
    np.testing.assert_allclose(address(jnp.asarray([-1.0, 1.0, 3.0])), [0, 0.25, 0.75], rtol=1e-5)
    np.testing.assert_array_equal(address(jnp.asarray([-1.0, -2.0])), [0, 0])


def test_a_memory_is_neither_lost_nor_blown_up_over_a_thousand_steps():
    memory = SHM(8, 8, key=jax.random.key(0), memory_size=8)
    x = jax.random.normal(jax.random.key(1), (1_000, 8))
    c, _ = jax.jit(jax.vmap(memory._update))(x, jnp.arange(1_000))
    # The median over entries of the geometric mean of the calibration.
    mean = np.median(np.exp(np.mean(np.log(np.asarray(c, np.float64)), axis=0)))
    assert 0.95 < mean <= 1.01
