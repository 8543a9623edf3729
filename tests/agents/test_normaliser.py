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
from memoroids.agents.networks import QNetwork
from memoroids.agents.normaliser import FARTHEST, Normaliser, one_hot_symbols
from memoroids.envs.observations import Mixed, Observations, Ranges, Symbols
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


SYMBOLS, GRID = (Symbols(1, 4, 3), Symbols(5, 7, 16)), (Symbols(0, 2, 3),)


def test_symbols_are_read_one_hot_in_their_places():
    row = np.asarray([0.5, 0, 2, 4, -1.5, 15, 17], np.float32)
    expected = np.concatenate(([0.5], np.eye(3)[[0, 2, 1]].ravel(), [-1.5], np.eye(16)[[15, 1]].ravel()))
    np.testing.assert_array_equal(one_hot_symbols(jnp.asarray(row), SYMBOLS), expected)
    as_given = Normaliser.of(Ranges.known(len(expected)), SYMBOLS)
    np.testing.assert_array_equal(as_given(jnp.asarray(row)), expected)
    assert as_given.after(tape_of(np.tile(row, (11, 1)))) is as_given


def test_the_derivative_of_a_symbol_is_half_the_difference_of_its_neighbours():
    weight = np.random.default_rng(0).normal(size=5).astype(np.float32)
    for number, (below, above) in {1: (0, 2), 3: (2, 4), 0: (None, 1), 4: (3, None)}.items():
        found = jax.grad(lambda x: one_hot_symbols(x, (Symbols(0, 1, 5),)) @ weight)(jnp.asarray([number], jnp.float32))
        ends = [0 if at is None else weight[at] for at in (below, above)]
        np.testing.assert_allclose(found, [(ends[1] - ends[0]) / 2], rtol=1e-6)


def test_symbols_are_normalised_by_how_often_each_of_them_is_seen():
    grid = np.random.default_rng(0).choice(3, p=[0.8, 0.15, 0.05], size=(11, 2)).astype(np.float32)
    grid[:, 1] = 2  # always the same
    found = Normaliser.of(Observations("env", gym.spaces.Box(0, 2, (2, 1), np.uint8)).ranges(0, False, 0), GRID)
    for _ in range(2):
        found = found.after(tape_of(grid))
    hot = np.eye(3)[grid[:, 0].astype(int)]
    deviation = np.where(hot.std(0) > 0, hot.std(0), 1)
    expected = np.concatenate(((hot - hot.mean(0)) / deviation, np.zeros((11, 3))), axis=1)
    np.testing.assert_allclose(jax.vmap(found)(jnp.asarray(grid)), np.clip(expected, -10, 10), atol=1e-4)


@pytest.mark.parametrize("ranges", [None, Ranges.known(6)], ids=["as given", "known ranges"])
def test_a_network_reads_symbols_one_hot_with_and_without_ranges(ranges):
    network = QNetwork(Mixed((), 2, GRID), ACTIONS, MEMORIES["gru"], key=jax.random.key(0), width=WIDTH, ranges=ranges)
    row, begin = jnp.asarray([1, 2], jnp.float32), jnp.asarray(True)
    np.testing.assert_array_equal(network.at_unit_scale(row), [0, 1, 0, 0, 0, 1])
    assert network.encoder.vector.linear.weight.shape[1] == 6 + 1
    assert jax.tree.leaves(network.step(row, begin, network.initial_state())[0])[0].shape == (ACTIONS,)
