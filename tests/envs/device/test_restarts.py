"""Restarts of mapped environments: only those whose episodes are over, all ways alike."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.envs.device.restarts import BLOCK, FEW, restarted


def reset(key: jax.Array) -> Any:
    return {"seed": jax.random.bits(key), "place": jax.random.randint(key, (3,), 0, 1_000)}


@pytest.mark.parametrize("num_envs", [1, 5, FEW * BLOCK, FEW * BLOCK + 1, 700])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.3, 1.0])
def test_those_that_are_over_get_the_episode_of_their_key(num_envs, share, rng):
    over = rng.random(num_envs) < share
    keys = jax.random.split(jax.random.key(1), num_envs)
    states = {"seed": jnp.arange(num_envs, dtype=jnp.uint32), "place": jnp.zeros((num_envs, 3), jnp.int32)}
    after = jax.jit(lambda over: restarted(reset, keys, over, states))(jnp.asarray(over))
    for i in range(num_envs):
        expected = reset(keys[i]) if over[i] else jax.tree.map(lambda leaf, i=i: leaf[i], states)
        jax.tree.map(lambda leaf, one, i=i: np.testing.assert_array_equal(leaf[i], one), after, expected)


@pytest.mark.parametrize("num_envs", [3, 300])
def test_several_runs_at_once_are_each_as_alone(num_envs, rng):
    over = jnp.asarray(rng.random((4, num_envs)) < np.array([[0.0], [0.02], [0.2], [0.9]]))
    keys = jax.random.split(jax.random.key(2), (4, num_envs))
    states = {"seed": jnp.zeros((4, num_envs), jnp.uint32), "place": jnp.zeros((4, num_envs, 3), jnp.int32)}
    together = jax.jit(jax.vmap(lambda *of: restarted(reset, *of, axis="run"), axis_name="run"))(keys, over, states)
    alone = [
        jax.jit(lambda *of: restarted(reset, *of))(*jax.tree.map(lambda x, i=i: x[i], (keys, over, states)))
        for i in range(4)
    ]
    for i, one in enumerate(alone):
        jax.tree.map(lambda leaf, mine, i=i: np.testing.assert_array_equal(leaf[i], mine), together, one)
