"""HGRN: bounds of the forget gates that grow from layer to layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.memory import HGRN


def test_bounds_start_at_zero_and_grow_in_equal_parts():
    memory = HGRN(3, 4, key=jax.random.key(0), state_size=2, layers=4)
    np.testing.assert_allclose(memory.lower_bounds(), np.repeat([[0.25, 0.5, 0.75]], 2, axis=0).T, atol=1e-6)


def test_decays_stay_between_the_bound_and_one_whatever_the_parameters():
    memory = HGRN(3, 4, key=jax.random.key(0), state_size=2, layers=3)
    memory = eqx.tree_at(lambda m: m.gamma, memory, 3 * jax.random.normal(jax.random.key(1), (3, 2)))
    bounds = np.asarray(memory.lower_bounds())
    assert np.all(np.diff(bounds, axis=0) > 0) and np.all((bounds > 0) & (bounds < 1))
    top = memory.bound().layers[-1]
    for scale in (1.0, 1e4):
        layer = eqx.tree_at(lambda m: m.forget.weight, top, replace_fn=lambda w, s=scale: s * w)
        decay, _ = layer.lift(jnp.asarray([1.0, -2.0, 3.0, 0.5]), jnp.asarray(False))
        assert np.all(np.abs(decay) >= bounds[-1] - 1e-6) and np.all(np.abs(decay) <= 1 + 1e-6)


def test_bounds_are_learned_through_all_layers_but_the_first():
    memory = HGRN(3, 4, key=jax.random.key(0), state_size=2, layers=2)
    x, begin = jax.random.normal(jax.random.key(1), (5, 3)), jnp.arange(5) == 0
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m: jnp.sum(m(x, begin)[0] ** 2)))(memory)
    assert np.all(np.asarray(gradient.gamma) != 0)
    assert all(layer.lower_bound is None for layer in gradient.layers)
