"""Observations at unit scale: statistics against NumPy over all that was seen, and what they leave alone."""

import dataclasses

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ragged import ACTIONS, QUICKLY, WIDTH, life, ragged, settings

from kinds_of_memory import SMALL
from memoroids.agents.agent_registry import REGISTRY
from memoroids.agents.base import Plan
from memoroids.agents.normaliser import FARTHEST, Normaliser
from memoroids.envs.observations import Observations, Ranges
from memoroids.memory import REGISTRY as MEMORIES
from memoroids.replay import Sample
from memoroids.tape import empty

BOX = gym.spaces.Box(np.array([-2, -np.inf, 0], np.float32), np.array([6, np.inf, 1e4], np.float32))
RUNNING = Ranges(np.zeros(3, np.float32), np.ones(3, np.float32), np.ones(3, bool))


def tape_of(observation):
    """A life whose observations are these, and padding after it."""
    tape = jax.tree.map(jnp.asarray, life(0, ACTIONS))
    tape = dataclasses.replace(tape, observation=jnp.asarray(observation, jnp.float32))
    return jax.tree.map(lambda a, b: jnp.concatenate((a, b)), tape, empty(3, tape))


def drawn(seed, slots=11, scale=(1, 1, 1), shift=(0, 0, 0)):
    return np.random.default_rng(seed).normal(size=(slots, 3)) * scale + shift


@pytest.mark.parametrize("scale", [(1, 1, 1), (1e-3, 1, 1e6)])
def test_statistics_are_those_of_all_observations_seen_and_padding_is_none(scale):
    normaliser, seen = Normaliser.of(RUNNING), []
    for seed in range(4):
        seen.append(drawn(seed, scale=scale, shift=(5 * scale[0], 0, -scale[2])))
        normaliser = normaliser.after(tape_of(seen[-1]))
        every = np.concatenate(seen)
        np.testing.assert_allclose(normaliser.centre, every.mean(0), rtol=1e-4, atol=1e-4 * min(scale))
        np.testing.assert_allclose(normaliser.scale, every.std(0), rtol=1e-4)
        assert int(normaliser.weight) == len(every)
    out = jax.vmap(normaliser)(jnp.asarray(every, jnp.float32))
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(out.std(0), 1, rtol=1e-3)


def test_several_tapes_count_as_one_after_the_other():
    first, second = tape_of(drawn(0)), tape_of(drawn(1, scale=(3, 3, 3)))
    one_by_one = Normaliser.of(RUNNING).after(first).after(second)
    together = Normaliser.of(RUNNING).after(jax.tree.map(lambda *leaves: jnp.stack(leaves), first, second))
    for a, b in zip(jax.tree.leaves(one_by_one), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 3.0, 1e6])
def test_an_element_that_never_changes_becomes_zero(value):
    normaliser = Normaliser.of(RUNNING).after(tape_of(np.full((11, 3), value)))
    np.testing.assert_array_equal(normaliser(jnp.full(3, value)), 0)
    np.testing.assert_array_equal(normaliser.scale, 1)


def test_what_is_far_from_everything_seen_is_clipped():
    normaliser = Normaliser.of(RUNNING).after(tape_of(drawn(0)))
    np.testing.assert_array_equal(normaliser(jnp.asarray([1e9, -1e9, 1e30])), [FARTHEST, -FARTHEST, FARTHEST])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_observations_that_are_not_finite_change_nothing(bad):
    before = Normaliser.of(RUNNING).after(tape_of(drawn(0)))
    observation = drawn(1)
    observation[2, 1] = bad
    after = before.after(tape_of(observation))
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(a, b)


def test_narrow_bounds_become_minus_one_and_one_and_wide_ones_are_learnt():
    ranges = Observations("box", BOX).ranges(0, False, 0)
    assert ranges is not None and ranges.running.tolist() == [False, True, True]
    normaliser = Normaliser.of(ranges)
    np.testing.assert_allclose(normaliser(jnp.asarray([-2.0, 5, 5])), [-1, 5, 5])
    after = normaliser.after(tape_of(drawn(0)))
    np.testing.assert_allclose(after(jnp.asarray([6.0, 0, 0]))[0], 1)
    assert float(after.scale[0]) == 4


def test_discrete_parts_images_and_what_is_joined_are_left_as_they_are():
    space = gym.spaces.Dict(
        {
            "a": gym.spaces.Discrete(3),
            "b": gym.spaces.Box(0, 255, (40, 40, 1), np.uint8),
            "c": gym.spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "d": gym.spaces.MultiBinary(2),
            "e": gym.spaces.Box(0, 255, (2,), np.uint8),
        }
    )
    ranges = Observations("dict", space).ranges(4, True, 1)
    assert ranges is not None
    # The image first; of what is joined, only the reward has no known scale.
    assert np.flatnonzero(ranges.running).tolist() == [1600 + i for i in (3, 4, 7, 8, 13)]
    assert ranges.running.size == 1600 + 3 + 2 + 2 + 2 + 4 + 1 + 2
    np.testing.assert_array_equal(ranges.centre, 0)
    np.testing.assert_array_equal(ranges.half, 1)
    assert Observations("image", space["b"]).ranges(0, False, 0) is None


@pytest.mark.parametrize("name", REGISTRY)
def test_an_update_learns_the_statistics_and_no_gradient_moves_them(name):
    kind = REGISTRY[name]
    network = kind.network(
        3, ACTIONS, MEMORIES["ffm"], key=jax.random.key(0), width=WIDTH, sizes=SMALL["ffm"], ranges=RUNNING
    )
    agent = kind.make(settings(kind), network, Plan(8))
    state = agent.init(network)
    if kind.traits.learns_from_replay:
        tape = jax.tree.map(jnp.asarray, life(0, ACTIONS))
        batch = Sample(tape, tape.transition.astype(jnp.float32))
    else:
        batch = ragged(network)
    after, _, _ = jax.jit(agent.update, compiler_options=QUICKLY)(state, batch, jax.random.key(1))
    expected = Normaliser.of(RUNNING).after(batch.tape)
    for params in (after.params, *((after.target,) if hasattr(after, "target") else ())):
        for a, b in zip(jax.tree.leaves(params.normaliser), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    assert agent.network(after.params).normaliser.running == (True, True, True)
    moments = jax.tree.leaves(after.optimiser, is_leaf=lambda x: hasattr(x, "mu"))
    assert all(
        not np.any(leaf) for each in moments if hasattr(each, "mu") for leaf in jax.tree.leaves(each.mu.normaliser)
    )


def test_a_network_without_ranges_reads_observations_as_they_are():
    network = REGISTRY["dqn"].network(3, ACTIONS, MEMORIES["mlp"], key=jax.random.key(0), width=WIDTH)
    assert network.normaliser is None
    params = eqx.filter(network, eqx.is_inexact_array)
    assert params.normaliser is None
