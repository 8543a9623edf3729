import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.acting.device_collection import append_next_observation, collect_slots, play, start
from memoroids.envs.device.view import DeviceView
from memoroids.replay import ring_buffer
from toy_env import Lengths

NUM_ENVS = 4
# Nearly all the time of these tests is compilation.
quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def act(params, memory, observation, begin, explore, key):
    """A policy whose memory counts observations since the begin flag and keeps the last tag."""
    count, _ = memory
    count = jnp.where(begin, 0, count) + 1
    action = jnp.where(explore > 0, jax.random.randint(key, (), 0, 3), params)
    return action.astype(jnp.int32), (count, observation[0])


MEMORY = (jnp.zeros((), jnp.int32), jnp.zeros(()))
VIEW = DeviceView("toy", Lengths())
KEY = jax.random.key(3)


def collected(slots_each, *, num_envs=NUM_ENVS, view=VIEW, explore=1.0, act=act, memory=MEMORY):
    """Chunks of slots end to end, the memory before each, and the states of the environments after the last."""
    env_states = quickly(lambda: start(view, memory, num_envs, KEY))()
    run = quickly(
        lambda env_states, slots: collect_slots(
            view, act, jnp.ones((), jnp.int32), env_states, KEY, slots, explore=lambda n: jnp.full(n.shape, explore)
        ),
        static_argnums=1,
    )
    chunks, states = [], []
    for slots in slots_each:
        states.append(env_states)
        env_states, got = run(env_states, slots)
        chunks.append(got)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *chunks), states, env_states


def test_tapes_are_whole_episodes_end_to_end():
    got, _, _ = collected([60])
    tape = got.tape
    ends = set()
    for row in range(NUM_ENVS):
        t, seen = 0, 0
        while True:
            stop = t + 1
            while stop < 60 and not tape.begin[row, stop]:
                stop += 1
            if stop == 60:
                break
            # One episode: its tag throughout, steps that count up, a final slot alone without a transition.
            assert tape.begin[row, t]
            tags = tape.observation[row, t:stop, 0]
            assert (tags == tags[0]).all()
            np.testing.assert_allclose(tape.observation[row, t:stop, 1], np.arange(stop - t) / 10, rtol=1e-6)
            length = stop - t - 1
            assert 1 <= length <= 5
            np.testing.assert_array_equal(tape.transition[row, t:stop], np.arange(length + 1) < length)
            over = np.arange(length + 1) == length - 1
            np.testing.assert_array_equal(tape.terminated[row, t:stop], over & (length % 2 == 1))
            np.testing.assert_array_equal(tape.truncated[row, t:stop], over & (length % 2 == 0))
            paid = tape.action[row, t : stop - 1] + np.arange(length) / 10
            np.testing.assert_allclose(tape.reward[row, t : stop - 1], paid, rtol=1e-6)
            assert tape.reward[row, stop - 1] == 0 and tape.action[row, stop - 1] == 0
            np.testing.assert_allclose(got.total[row, stop - 1], paid.sum(), rtol=1e-5)
            ends.add((length % 2, length))
            t, seen = stop, seen + 1
        assert seen > 5
    assert {length for _, length in ends} == {1, 2, 3, 4, 5}


def test_episodes_are_numbered_in_the_order_of_their_starts():
    got, _, env_states = collected([40])
    begins = [(t, row, got.number[row, t]) for t in range(40) for row in range(NUM_ENVS) if got.tape.begin[row, t]]
    numbers = [number for _, _, number in begins]
    assert numbers == list(range(len(numbers)))
    assert int(env_states.started) in (len(numbers), len(numbers) + int(np.sum(env_states.begin)))


def test_chunks_of_any_length_make_the_same_tape():
    whole, _, _ = collected([24])
    parts, _, _ = collected([5, 1, 11, 7])
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_the_memory_before_a_chunk_is_from_before_its_first_slot():
    got, states, _ = collected([7, 9, 8])
    for env_states, first in zip(states, (0, 7, 16), strict=True):
        for row in range(NUM_ENVS):
            np.testing.assert_array_equal(env_states.observation[row], got.tape.observation[row, first])
            if got.tape.begin[row, first]:
                continue
            # As many observations as the episode had before this slot.
            age = 1
            while not got.tape.begin[row, first - age]:
                age += 1
            assert int(env_states.memory[0][row]) == age


def test_the_following_slot_holds_what_comes_next_or_nothing():
    first, _, after = collected([7], num_envs=7)
    both, _, _ = collected([7, 3], num_envs=7)
    tape = append_next_observation(first.tape, after)
    kinds = set()
    for row in range(7):
        begins = bool(both.tape.begin[row, 7])
        kinds.add(begins)
        assert not tape.transition[row, 7]
        assert bool(tape.begin[row, 7]) == begins
        expected = np.zeros(2) if begins else both.tape.observation[row, 7]
        np.testing.assert_array_equal(tape.observation[row, 7], expected)
        assert tape.reward[row, 7] == 0 and not tape.terminated[row, 7] and not tape.truncated[row, 7]
    assert kinds == {True, False}


def test_random_draws_do_not_depend_on_other_environments():
    few, _, _ = collected([9], num_envs=2)
    many, _, _ = collected([9], num_envs=5)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:2]), few.tape, many.tape)


def test_a_mapped_axis_of_runs_changes_nothing():
    def run(key, axis):
        env_states = start(VIEW, MEMORY, NUM_ENVS, key)
        ones = jnp.ones(NUM_ENVS)
        _, got = collect_slots(
            VIEW, act, jnp.ones((), jnp.int32), env_states, key, 20, explore=lambda _: ones, axis=axis
        )
        return got

    keys = jax.random.split(jax.random.key(8), 3)
    mapped = quickly(jax.vmap(lambda key: run(key, "runs"), axis_name="runs"))(keys)
    for i in range(3):
        alone = quickly(lambda key: run(key, None))(keys[i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6), mapped, alone)


def test_resets_stay_behind_a_condition_under_a_mapped_axis():
    def run(key):
        env_states = start(VIEW, MEMORY, NUM_ENVS, key)
        ones = jnp.ones(NUM_ENVS)
        return collect_slots(
            VIEW, act, jnp.ones((), jnp.int32), env_states, key, 20, explore=lambda _: ones, axis="runs"
        )

    keys = jax.random.split(jax.random.key(8), 3)
    assert " cond[" in str(jax.make_jaxpr(jax.vmap(run, axis_name="runs"))(keys))


def test_continuous_actions_are_clipped_where_they_act_and_kept_as_drawn():
    view = DeviceView("toy", Lengths(floats=True), previous_action=True)
    assert view.observation_shape == (4,)

    def far(params, memory, observation, begin, explore, key):
        return jnp.asarray([-9.0, 9.0]), memory

    got, _, _ = collected([12], view=view, act=far)
    tape = got.tape
    np.testing.assert_array_equal(tape.action[tape.transition], np.tile([-9.0, 9.0], (tape.transition.sum(), 1)))
    step = np.round(10 * tape.observation[..., 1])
    np.testing.assert_allclose(tape.reward[tape.transition], (1 + step / 10)[tape.transition], rtol=1e-5)
    np.testing.assert_array_equal(tape.observation[~tape.begin][:, 2:], np.tile([-2.0, 3.0], ((~tape.begin).sum(), 1)))
    assert (tape.observation[tape.begin][:, 2:] == 0).all()


@pytest.mark.parametrize("count", [1, 6])
def test_played_episodes_equal_a_loop_over_steps(count):
    keys = jax.random.split(jax.random.key(5), count)
    total, length = quickly(lambda keys: play(VIEW, act, jnp.full((), 2, jnp.int32), MEMORY, keys, jnp.zeros(count)))(
        keys
    )
    for i in range(count):
        state, _ = VIEW.reset(jax.random.fold_in(keys[i], 0))
        expected, steps = 0.0, 0
        while True:
            state, (_, reward, terminated, truncated) = VIEW.step(state, jnp.full((), 2, jnp.int32), keys[i])
            expected, steps = expected + float(reward), steps + 1
            if terminated or truncated:
                break
        assert int(length[i]) == steps
        np.testing.assert_allclose(total[i], expected, rtol=1e-5)


SPOILED = 0.4
BAD = DeviceView("toy", Lengths(spoiled=SPOILED))


@pytest.mark.parametrize("pieces", [[60], [7] * 8 + [4], [1] * 60], ids=["one", "several", "slot by slot"])
def test_a_spoiled_episode_is_padding_from_the_chunk_in_which_it_becomes_spoiled(pieces):
    # Toy episodes do not depend on what they have shown, so what is left is as it would have been.
    healthy, _, _ = collected([60])
    got, _, after = collected(pieces, view=BAD)
    starts = np.concatenate(([0], np.cumsum(pieces)))
    expected = jax.tree.map(np.array, healthy.tape)
    found = np.zeros((NUM_ENVS, 60), bool)
    for row in range(NUM_ENVS):
        opened = [t for t in range(60) if healthy.tape.begin[row, t]]
        for t, stop in zip(opened, [*opened[1:], 60], strict=True):
            # The second step's answer is the third slot; an episode of one step has none.
            if healthy.tape.observation[row, t, 0] >= SPOILED or t + 1 >= stop - (stop < 60):
                continue
            found[row, t + 1] = True
            first = max(t, starts[np.searchsorted(starts, t + 1, side="right") - 1])
            for leaf in (expected.observation, expected.action, expected.reward):
                leaf[row, first:stop] = 0
            for leaf in (expected.terminated, expected.truncated, expected.transition):
                leaf[row, first:stop] = False
            expected.begin[row, first:stop] = True
    assert found.sum() > 5
    np.testing.assert_array_equal(got.faults, found)
    assert np.isfinite(got.tape.observation).all() and np.isfinite(got.tape.reward).all()
    for mine, theirs in zip(jax.tree.leaves(got.tape), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    following = append_next_observation(got.tape, after)
    assert np.isfinite(following.observation).all()
    np.testing.assert_array_equal(following.begin[:, -1], np.asarray(after.begin | after.spoiled))


@pytest.mark.parametrize("pieces", [[60], [7] * 8], ids=["one", "several"])
def test_no_spoiled_episode_enters_a_replay(pieces):
    got, _, _ = collected(pieces, view=BAD)
    width = pieces[0]
    buffer = ring_buffer(NUM_ENVS, 100, 400, 5)
    state = buffer.init(jax.tree.map(lambda leaf: leaf[0, :1], got.tape))
    for at in range(0, sum(pieces), width):
        state = quickly(buffer.add)(state, jax.tree.map(lambda leaf, at=at: leaf[:, at : at + width], got.tape))
    tape = quickly(buffer.sample)(state, KEY).tape
    tags = set(np.asarray(tape.observation)[np.asarray(tape.begin & tape.transition), 0].tolist())
    whole = set(got.tape.observation[got.tape.final][:, 0].tolist())
    assert tags == whole and len(tags) > 10
    assert min(tag for tag in tags if np.isfinite(tag)) >= 0 and np.isfinite(np.asarray(tape.observation)).all()


def test_a_spoiled_greedy_episode_has_no_return():
    def greedy(params, memory, observation, begin, explore, key):
        return jnp.zeros((), jnp.int32), memory

    keys = jax.vmap(jax.random.key)(jnp.arange(20))
    healthy, lengths = quickly(lambda: play(VIEW, greedy, (), (), keys, jnp.zeros(20)))()
    got, same = quickly(lambda: play(BAD, greedy, (), (), keys, jnp.zeros(20)))()
    tags = np.asarray(jax.vmap(lambda key: VIEW.reset(jax.random.fold_in(key, 0))[1][0])(keys))
    bad = (tags < SPOILED) & (np.asarray(lengths) > 1)
    np.testing.assert_array_equal(same, lengths)
    np.testing.assert_array_equal(got, np.where(bad, np.nan, healthy))
    assert 3 < bad.sum() < 17
