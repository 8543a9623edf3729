"""Rewards in units of a typical return: the statistics against a slow loop, and learning that no unit changes."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ragged import ACTIONS, OBSERVATION, QUICKLY, WIDTH, life, ragged, settings

from kinds_of_memory import SMALL
from memoroids.agents import reward_scale
from memoroids.agents.agent_registry import REGISTRY
from memoroids.agents.base import Plan
from memoroids.agents.reward_scale import RewardScale
from memoroids.memory import REGISTRY as MEMORIES
from memoroids.replay import Sample
from memoroids.tape import empty, episode

POWERS = (-100, -10, 3, 10, 100)


def tape_of(*rewards, terminated=True):
    """One episode with these rewards, and a slot of padding after it."""
    length = len(rewards)
    made = episode(
        np.zeros((length + 1, 1)), np.zeros(length, np.int32), np.asarray(rewards), terminated, not terminated
    )
    made = jax.tree.map(jnp.asarray, made)
    return jax.tree.map(lambda a, b: jnp.concatenate((a, b)), made, empty(1, made))


def slow_returns(tape, discount):
    """The returns that are not 0, one transition at a time."""
    found, ahead = [], 0.0
    for reward, transition in zip(np.asarray(tape.reward)[::-1], np.asarray(tape.transition)[::-1], strict=True):
        ahead = reward + discount * ahead if transition else 0.0
        if transition and ahead != 0:
            found.append(ahead)
    return found


def test_the_unit_is_the_root_mean_square_of_all_returns_that_are_not_zero():
    scale, seen = RewardScale.unknown(), []
    for row in range(3):
        tape = jax.tree.map(jnp.asarray, life(row, ACTIONS))
        scale = scale.after(tape, 0.9)
        seen += slow_returns(tape, 0.9)
        np.testing.assert_allclose(scale.unit, np.sqrt(np.mean(np.square(seen))), rtol=1e-5)
        assert int(scale.weight) == len(seen)


def test_several_tapes_count_as_one_after_the_other():
    tapes = [tape_of(1.0, -2.0, 3.0), tape_of(0.0, 0.0, 5.0)]
    one_by_one = RewardScale.unknown().after(tapes[0], 0.5).after(tapes[1], 0.5)
    together = RewardScale.unknown().after(jax.tree.map(lambda *leaves: jnp.stack(leaves), *tapes), 0.5)
    np.testing.assert_allclose(together.rms, one_by_one.rms, rtol=1e-6)


def test_a_rare_reward_counts_as_itself_and_not_by_how_rare_it_is():
    scale = RewardScale.unknown()
    for reward in [0.0] * 50 + [4.0]:
        scale = scale.after(tape_of(0.0, 0.0, 0.0, reward), 1.0)
    np.testing.assert_allclose(scale.unit, 4.0, rtol=1e-6)


def test_rewards_that_are_all_zero_keep_their_unit():
    scale = RewardScale.unknown().after(tape_of(0.0, 0.0), 0.9)
    assert float(scale.unit) == 1 and float(scale.weight) == 0
    np.testing.assert_array_equal(scale.apply(tape_of(0.0, 0.0)).reward, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_batch_that_is_not_finite_changes_nothing(bad):
    before = RewardScale.unknown().after(tape_of(1.0, 2.0), 0.9)
    tape = tape_of(1.0, 2.0)
    after = before.after(dataclasses.replace(tape, reward=tape.reward.at[1].set(bad)), 0.9)
    assert jax.tree.map(float, after) == jax.tree.map(float, before)


def test_old_returns_fade(monkeypatch):
    monkeypatch.setattr(reward_scale, "WINDOW", 10)
    scale = RewardScale.unknown()
    for reward, times in ((1.0, 40), (100.0, 200)):
        for _ in range(times):
            scale = scale.after(tape_of(reward), 0.9)
    np.testing.assert_allclose(scale.unit, 100.0, rtol=1e-3)


@pytest.mark.parametrize("power", [-120, -30, 1, 30, 120])
def test_a_power_of_two_changes_the_unit_by_it_and_scaled_rewards_by_no_bit(power):
    plain = changed = RewardScale.unknown()
    factor = np.float32(2.0**power)
    for row in range(3):
        tape = jax.tree.map(jnp.asarray, life(row, ACTIONS))
        other = dataclasses.replace(tape, reward=tape.reward * factor)
        plain, changed = plain.after(tape, 0.97), changed.after(other, 0.97)
        np.testing.assert_array_equal(changed.unit, plain.unit * factor)
        np.testing.assert_array_equal(changed.apply(other).reward, plain.apply(tape).reward)


def batches(kind, network):
    """Three batches of an agent's own kind, from tapes with every kind of boundary."""
    if kind.traits.learns_from_replay:
        tapes = [jax.tree.map(jnp.asarray, life(row, ACTIONS)) for row in range(3)]
        return [Sample(tape, tape.transition.astype(jnp.float32)) for tape in tapes]
    return [ragged(network)] * 3


@pytest.mark.parametrize("name", REGISTRY)
def test_every_agent_learns_the_same_from_rewards_times_a_power_of_two(name):
    kind = REGISTRY[name]
    network = kind.network(
        OBSERVATION, ACTIONS, MEMORIES["ffm"], key=jax.random.key(0), width=WIDTH, sizes=SMALL["ffm"]
    )
    agent = kind.make(settings(kind), network, Plan(8))
    assert agent.init(network).scale is not None, "rewards are scaled unless settings say otherwise"
    update = jax.jit(agent.update, compiler_options=QUICKLY)

    def learned(factor):
        state, shown = agent.init(network), []
        for i, batch in enumerate(batches(kind, network)):
            batch = batch._replace(tape=dataclasses.replace(batch.tape, reward=batch.tape.reward * factor))
            state, metrics, _ = update(state, batch, jax.random.key(i))
            shown.append(metrics)
        return state, shown

    plain, metrics = learned(np.float32(1))
    assert not jax.tree.all(jax.tree.map(jnp.array_equal, plain.params, agent.init(network).params))
    for power in POWERS:
        factor = np.float32(2.0**power)
        changed, in_other_units = learned(factor)
        for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(changed.params), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"2^{power}")
        for one, other in zip(metrics, in_other_units, strict=True):
            np.testing.assert_array_equal(other["loss"], one["loss"])
            for own in ("td_error", "q_mean"):
                np.testing.assert_array_equal(other[own], one[own] * factor)


@pytest.mark.parametrize("name", REGISTRY)
def test_without_scaling_the_state_holds_no_statistics(name):
    kind = REGISTRY[name]
    network = kind.network(OBSERVATION, ACTIONS, MEMORIES["mlp"], key=jax.random.key(0), width=WIDTH)
    state = kind.make(kind.settings(scale_rewards=False), network, Plan(8)).init(network)
    assert state.scale is None
    assert not any(isinstance(leaf, RewardScale) for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_array)))
