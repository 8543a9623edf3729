"""RetNet: the decays of its heads, and positions that are carried from call to call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.memory.retnet import RetNet, log_gamma


def test_heads_decay_as_published():
    np.testing.assert_allclose(np.exp(log_gamma(3)), [1 - 1 / 32, 1 - 1 / 64, 1 - 1 / 128], rtol=1e-6)


@pytest.mark.parametrize("backend", ["chunked", "sequential"])
def test_positions_count_from_the_begin_flag_through_carried_states(backend, rng):
    memory = RetNet(2, 4, key=jax.random.key(0), heads=1, key_size=2, value_size=2, hidden_size=2)
    x = rng.standard_normal((7, 2)).astype(np.float32)
    counts, state = [], memory.initial_state()
    for part, begin in ((slice(0, 3), [True, False, False]), (slice(3, 7), [False, False, True, False])):
        _, state = memory(x[part], jnp.asarray(begin), state, backend=backend)
        counts.append(float(state[0]))
    assert counts == [3.0, 2.0]
