"""Memories as linen cells against the memories themselves, and linen cells as memories against their own calls."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kinds_of_memory import SMALL
from memoroids import check_memory
from memoroids.interop.flax_linen import MemoryCell, memory_of_cell
from memoroids.interop.unbound import parameters_of, with_parameters
from memoroids.memory import REGISTRY

BEGIN = np.array([[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1]], bool)


def inputs(rng):
    return jnp.asarray(rng.standard_normal((2, 6, 3)), jnp.float32), jnp.asarray(BEGIN)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.one_in(3)
def test_a_cell_steps_and_runs_over_sequences_as_the_memory_does(name, rng):
    x, begin = inputs(rng)
    cell = MemoryCell(name, 3, 5, SMALL[name])
    carry = cell.initialize_carry(jax.random.key(1), (2, 3))
    variables = cell.init(jax.random.key(0), carry, (x[:, 0], begin[:, 0]))
    memory = REGISTRY[name](3, 5, key=jax.random.key(2), **SMALL[name])
    assert variables["params"]["memory"].keys() == parameters_of(memory).keys()
    memory = with_parameters(memory, variables["params"]["memory"])

    s, last = jax.jit(lambda v: cell.apply(v, x, begin, method=cell.sequence))(variables)
    step = jax.jit(cell.apply)
    for t in range(6):
        carry, s_t = step(variables, carry, (x[:, t], begin[:, t]))
        np.testing.assert_allclose(s_t, s[:, t], rtol=1e-4, atol=1e-5)
    for i in range(2):
        want, state = memory(x[i], begin[i])
        np.testing.assert_allclose(s[i], want, rtol=1e-4, atol=1e-5)
        for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5)


def test_a_cell_is_trained_inside_a_linen_module(rng):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, begin):
            s, _ = MemoryCell("lru", 4, 8, {"state_size": 4}).sequence(nn.Dense(4)(x), begin)
            return nn.Dense(1)(s)

    x, begin = inputs(rng)
    model = Model()
    variables = model.init(jax.random.key(0), x, begin)
    optimiser = optax.adam(1e-2)
    state = optimiser.init(variables)

    @jax.jit
    def update(variables, state):
        loss, gradient = jax.value_and_grad(lambda v: jnp.mean((model.apply(v, x, begin) - x[..., :1]) ** 2))(variables)
        change, state = optimiser.update(gradient, state)
        return optax.apply_updates(variables, change), state, loss, gradient

    losses = []
    for _ in range(40):
        variables, state, loss, gradient = update(variables, state)
        losses.append(loss)
    assert losses[-1] < losses[0] / 2
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["params"]["MemoryCell_0"]))


@pytest.mark.parametrize("cell", [nn.GRUCell(features=4), nn.OptimizedLSTMCell(features=4)], ids=["gru", "lstm"])
def test_a_linen_cell_is_a_lawful_memory_with_its_own_outputs(cell, rng):
    memory = memory_of_cell(cell, 3, key=jax.random.key(0))
    check_memory(memory)
    x, begin = rng.standard_normal((6, 3)).astype(np.float32), BEGIN[0]
    s, _ = memory(x, begin)
    variables = memory.cell.args[0]
    carry = None
    for t in range(6):
        carry = cell.initialize_carry(jax.random.key(5), (3,)) if begin[t] else carry
        carry, y = cell.apply(variables, carry, x[t])
        np.testing.assert_allclose(s[t], y, atol=1e-6)


def test_a_cell_whose_output_is_no_vector_is_refused():
    class Wrong(nn.RNNCellBase):
        @nn.compact
        def __call__(self, carry, x):
            return carry, jnp.zeros((2, 2))

        @nn.nowrap
        def initialize_carry(self, rng, input_shape):
            return jnp.zeros(1)

        num_feature_axes = 1

    with pytest.raises(ValueError, match=r"^memory_of_cell: the cell must return a vector for x \(3,\), got \(2, 2\)$"):
        memory_of_cell(Wrong(), 3, key=jax.random.key(0))
