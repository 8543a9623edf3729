"""A memory's parameters by path, taken out and put back, for every model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.interop.unbound import broadcast_state, factory_of, over_batch, parameters_of, with_parameters
from memoroids.memory import LRU, REGISTRY


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.one_in(3)
def test_parameters_put_into_shapes_make_the_memory_again(name):
    def build(key):
        return REGISTRY[name](3, 4, key=key)

    memory = build(jax.random.key(0))
    parameters = parameters_of(memory)
    again = with_parameters(eqx.filter_eval_shape(build, jax.random.key(1)), parameters)
    assert jax.tree.structure(again) == jax.tree.structure(memory)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(memory), strict=True):
        np.testing.assert_array_equal(a, b)
    halved = with_parameters(memory, {path: leaf / 2 for path, leaf in parameters.items()})
    for a, b in zip(jax.tree.leaves(halved), jax.tree.leaves(memory), strict=True):
        np.testing.assert_array_equal(a, b / 2)


def test_a_factory_is_taken_by_name_or_as_it_is():
    assert factory_of("gru") is REGISTRY["gru"] and factory_of(LRU) is LRU
    with pytest.raises(ValueError, match="unknown memory 'lur'"):
        factory_of("lur")


def test_an_array_that_is_not_trained_is_refused():
    class Counting(eqx.Module):
        order: jax.Array

    with pytest.raises(ValueError, match=r"^Counting\.order is an array that is not trained: make it a static field"):
        parameters_of(Counting(jnp.arange(3)))


def test_leading_axes_are_mapped_over():
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(over_batch(jnp.sum, 2)(x), x.sum(-1))
    np.testing.assert_array_equal(over_batch(jnp.sum, 0)(x), x.sum())
    state = broadcast_state((jnp.arange(2), ()), (3, 5))
    np.testing.assert_array_equal(state[0], np.broadcast_to([0, 1], (3, 5, 2)))
