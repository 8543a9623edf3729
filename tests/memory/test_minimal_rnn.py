"""minGRU and minLSTM: positive states, and gates that stay accurate where their parts underflow."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.memory import MinGRU, MinLSTM
from memoroids.memory.minimal_rnn import positive


def test_the_activation_of_candidates_is_positive_and_continuous():
    x = np.array([-200.0, -3.0, -1e-6, 0.0, 2.0, 1e30], np.float32)
    got = np.asarray(positive(x))
    np.testing.assert_allclose(got[1:], [1 / (1 + np.exp(3.0)), 0.5, 0.5, 2.5, 1e30], rtol=1e-5)
    assert 0 <= got[0] < 1e-30
    slopes = jax.vmap(jax.grad(positive))(jnp.asarray(x))
    assert np.isfinite(slopes).all() and slopes[4] == 1


@pytest.mark.parametrize("model", [MinGRU, MinLSTM])
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_the_weights_of_old_and_new_sum_to_one_however_large_their_arguments(model, scale: float):
    memory = model(3, 4, key=jax.random.key(0), state_size=6)

    def weights(u):
        return jnp.stack(memory.gates(u))

    u = scale * jax.random.normal(jax.random.key(1), (4,))
    got, slope = jax.jit(weights)(u), jax.jit(jax.jacrev(weights))(u)
    np.testing.assert_allclose(got.sum(0), 1, rtol=1e-6)
    assert np.all(np.asarray(got) >= 0) and np.isfinite(slope).all()


def test_min_lstm_weighs_by_the_ratio_of_its_gates_even_if_both_underflow():
    # The gates are exp(-200) and exp(-201), which are 0 in float32; their ratio is e.
    gate = jnp.zeros((2, 1)), jnp.asarray([-200.0, -201.0])
    memory = MinLSTM(1, 1, key=jax.random.key(0), state_size=1)
    memory = eqx.tree_at(lambda m: (m.gate.weight, m.gate.bias), memory, gate)
    keep, write = memory.gates(jnp.zeros(1))
    np.testing.assert_allclose([keep[0], write[0]], [np.e / (1 + np.e), 1 / (1 + np.e)], rtol=1e-5)
