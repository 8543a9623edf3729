"""Memory traces: averages whose rates are fixed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.memory import MemoryTraces


def test_the_fastest_trace_is_the_observation_and_the_slowest_its_long_average():
    memory = MemoryTraces(2, 3, key=jax.random.key(0), traces=3, longest=100.0)
    x = jnp.tile(jnp.asarray([[1.0, -2.0]]), (1_000, 1)).at[-1].set(jnp.asarray([5.0, 5.0]))
    _, traces = memory(x, jnp.arange(1_000) == 0)
    np.testing.assert_allclose(traces[0], [5, 5], rtol=1e-6)
    np.testing.assert_allclose(traces[1], [1.4, -1.3], rtol=1e-4)
    np.testing.assert_allclose(traces[2], [1.04, -1.93], rtol=1e-3)


def test_rates_are_not_parameters():
    memory = MemoryTraces(2, 3, key=jax.random.key(0), traces=3)
    assert len(jax.tree.leaves(eqx.filter(memory, eqx.is_array))) == 2
