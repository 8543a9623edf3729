"""Memories as nnx modules against the memories themselves, and nnx cells as memories against their own calls."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from kinds_of_memory import SMALL
from memoroids import check_memory
from memoroids.interop.flax_nnx import MemoryModule, memory_of_cell
from memoroids.interop.unbound import with_parameters
from memoroids.memory import REGISTRY

BEGIN = np.array([[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1]], bool)


def inputs(rng):
    return jnp.asarray(rng.standard_normal((2, 6, 3)), jnp.float32), jnp.asarray(BEGIN)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.one_in(3)
def test_a_module_steps_and_runs_over_sequences_as_the_memory_does(name, rng):
    x, begin = inputs(rng)
    module = MemoryModule(name, 3, 5, rngs=nnx.Rngs(0), **SMALL[name])
    parameters = {path: parameter[...] for path, parameter in module.parameters.items()}
    memory = with_parameters(REGISTRY[name](3, 5, key=jax.random.key(2), **SMALL[name]), parameters)

    s, last = nnx.jit(lambda m, x, begin: m(x, begin))(module, x, begin)
    step = nnx.jit(lambda m, x, begin, state: m.step(x, begin, state))
    state = module.initial_state((2,))
    for t in range(6):
        s_t, state = step(module, x[:, t], begin[:, t], state)
        np.testing.assert_allclose(s_t, s[:, t], rtol=1e-4, atol=1e-5)
    for i in range(2):
        want, end = memory(x[i], begin[i])
        np.testing.assert_allclose(s[i], want, rtol=1e-4, atol=1e-5)
        for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(end), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5)


def test_a_module_is_trained_inside_an_nnx_module(rng):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.memory = MemoryModule("lru", 3, 8, rngs=rngs, state_size=4)
            self.head = nnx.Linear(8, 1, rngs=rngs)

        def __call__(self, x, begin):
            return self.head(self.memory(x, begin)[0])

    x, begin = inputs(rng)
    model = Model(nnx.Rngs(0))
    optimiser = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def update(model, optimiser):
        loss, gradient = nnx.value_and_grad(lambda m: jnp.mean((m(x, begin) - x[..., :1]) ** 2))(model)
        optimiser.update(model, gradient)
        return loss, gradient

    losses = []
    for _ in range(40):
        loss, gradient = update(model, optimiser)
        losses.append(loss)
    assert losses[-1] < losses[0] / 2
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient.memory))


def cells():
    return {"gru": nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)), "lstm": nnx.OptimizedLSTMCell(3, 4, rngs=nnx.Rngs(0))}


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_an_nnx_cell_is_a_lawful_memory_with_its_own_outputs(name, rng):
    cell = cells()[name]
    memory = memory_of_cell(cell, 3)
    check_memory(memory)
    x, begin = rng.standard_normal((6, 3)).astype(np.float32), BEGIN[0]
    s, _ = memory(x, begin)
    carry = None
    for t in range(6):
        carry = cell.initialize_carry((3,), nnx.Rngs(0)) if begin[t] else carry
        carry, y = cell(carry, x[t])
        np.testing.assert_allclose(s[t], y, atol=1e-6)


def test_a_cell_whose_output_is_no_vector_is_refused():
    class Wrong(nnx.Module):
        def __call__(self, carry, x):
            return carry, jnp.zeros((2, 2))

        def initialize_carry(self, input_shape, rngs):
            return jnp.zeros(1)

    with pytest.raises(ValueError, match=r"^memory_of_cell: the cell must return a vector for x \(3,\), got \(2, 2\)$"):
        memory_of_cell(Wrong(), 3)
