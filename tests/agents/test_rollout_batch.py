"""Chunks of rollouts: what crosses their edges, what crosses a begin flag, and how rows become minibatches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import ragged
from ragged import ACTIONS, OBSERVATION, QUICKLY, WIDTH

from kinds_of_memory import SMALL
from memoroids.agents.networks import QNetwork
from memoroids.agents.rollout_batch import Rollout, minibatches, take_rows
from memoroids.memory import REGISTRY


def build(name):
    return QNetwork(OBSERVATION, ACTIONS, REGISTRY[name], key=jax.random.key(0), width=WIDTH, sizes=SMALL[name])


def rows(tapes):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *tapes)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.one_in(3)
def test_two_chunks_with_the_state_carried_say_what_one_chunk_says(name):
    network = build(name)
    lives = [ragged.life(row, ACTIONS) for row in range(4)]
    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (4, *leaf.shape)), network.initial_state())

    def compare(long, first, second):
        whole, whole_tp1 = Rollout(long, start).run(network)
        # The state after the slots that were acted on, not the last: the next chunk takes that observation in again.
        _, carried = jax.vmap(network)(first.observation[:, :-1], first.begin[:, :-1], start)
        parts = Rollout(first, start).run(network), Rollout(second, carried).run(network)
        now, after = (jnp.concatenate([part[i][:, :-1] for part in parts], axis=1) for i in (0, 1))
        return (whole[:, :-1], whole_tp1[:, :-1]), (now, after)

    chunks = [rows([ragged.cut(tape, *span) for tape in lives]) for span in ((0, 10), (0, 5), (5, 5))]
    (whole, whole_tp1), (now, after) = jax.jit(compare, compiler_options=QUICKLY)(*chunks)
    np.testing.assert_allclose(now, whole, atol=2e-5)
    # What follows a slot is read only where it holds a transition.
    held = np.asarray(chunks[0].transition[:, :-1])
    np.testing.assert_allclose(np.asarray(after)[held], np.asarray(whole_tp1)[held], atol=2e-5)
    assert held[:, 4].any()


@pytest.mark.parametrize("name", SMALL)
def test_nothing_before_a_begin_flag_reaches_what_comes_after(name):
    network = build(name)
    rollout = ragged.ragged(network)
    run = jax.jit(lambda rollout: rollout.run(network)[0], compiler_options=QUICKLY)
    want = np.asarray(run(rollout))
    begin = np.asarray(rollout.tape.begin)
    later = np.cumsum(begin, axis=1) > 0
    observation = jnp.where(jnp.asarray(later)[..., None], rollout.tape.observation, jnp.nan)
    state = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), rollout.state)
    tape = dataclasses.replace(rollout.tape, observation=observation)
    got = np.asarray(run(Rollout(tape, state)))
    np.testing.assert_array_equal(got[later], want[later])
    assert np.isnan(got[~later]).all() and later.any() and (~later).any()


@pytest.mark.parametrize(("count", "size"), [(1, 12), (3, 12), (4, 12), (12, 12)])
def test_every_epoch_deals_every_row_once_and_each_minibatch_is_spread_over_all(count, size):
    chosen = minibatches(jax.random.key(0), size, count, 5)
    assert chosen.shape == (5 * count, size // count)
    taken = np.stack([take_rows(jnp.arange(size), index) for index in chosen])
    for epoch in taken.reshape(5, -1):
        assert sorted(epoch.tolist()) == list(range(size))
    # One row of each group of neighbours: on every device the same number.
    assert (taken // count == np.arange(size // count)).all()
    if 1 < count < size:
        assert len({tuple(sorted(index)) for index in taken.tolist()}) > count


def test_rows_are_dealt_whole():
    values = jnp.arange(6 * 5 * 2).reshape(6, 5, 2)
    got = take_rows({"a": values, "b": values[:, 0, 0]}, jnp.asarray([1, 0, 1]))
    np.testing.assert_array_equal(got["a"], np.asarray(values)[[1, 2, 5]])
    np.testing.assert_array_equal(got["b"], np.asarray(values)[[1, 2, 5], 0, 0])
