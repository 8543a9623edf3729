"""RotRNN: an orthogonal basis, and a state whose size does not depend on the decay."""

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.memory import RotRNN


def test_the_basis_of_every_head_is_orthogonal():
    memory = RotRNN(3, 4, key=jax.random.key(0), heads=3, head_size=6)
    p = np.asarray(memory._basis())
    np.testing.assert_allclose(p @ np.swapaxes(p, 1, 2), np.tile(np.eye(6), (3, 1, 1)), atol=1e-5)


def test_the_state_of_every_head_has_unit_norm_under_white_input_whatever_its_decay():
    memory = RotRNN(16, 16, key=jax.random.key(0), heads=6, head_size=4, gamma_min=0.1, gamma_max=0.999)
    # The surrounding norm makes the variance of each input 1.
    u = jax.random.normal(jax.random.key(1), (4096, 16))
    drive = np.asarray(jax.vmap(memory.drive)(u, jnp.zeros(4096, bool)))
    decay = np.abs(np.asarray(memory.decay(), np.complex128))
    variance = np.mean(np.abs(drive) ** 2, axis=0) / (1 - decay**2)
    np.testing.assert_allclose(variance.sum(1), 1, atol=0.1)
