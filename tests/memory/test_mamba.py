"""Mamba: step sizes within their range at the start, and a state that its input selects."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.memory import Mamba


def test_a_small_step_size_keeps_the_state_and_a_large_one_replaces_it():
    start = Mamba(4, 4, key=jax.random.key(0), state_size=3)
    c = jax.random.normal(jax.random.key(1), (8,))
    for bias, keeps in ((-40.0, 1.0), (40.0, 0.0)):
        memory = eqx.tree_at(lambda m: m.b_dt, start, jnp.full(8, bias))
        decay, drive, _ = memory._select(c)
        np.testing.assert_allclose(decay, np.full((8, 3), keeps), atol=1e-6)
        assert (np.abs(drive).max() < 1e-6) == bool(keeps)


def test_the_size_of_delta_is_a_sixteenth_of_the_width_rounded_up():
    ranks = [Mamba(2, width, key=jax.random.key(0), expand=1, state_size=1).w_dt.shape[1] for width in (1, 16, 17, 64)]
    assert ranks == [1, 1, 2, 4]
