import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.tape import concatenate, continues, empty, episode, pad, slots_needed


def make(length, terminated=True, truncated=False, offset=0.0):
    observation = np.arange(length + 1, dtype=np.float32)[:, None] + np.float32(offset)
    return episode(observation, np.arange(length, dtype=np.int32) % 3, np.ones(length), terminated, truncated)


def test_an_episode_of_t_actions_takes_t_plus_one_slots():
    tape = make(3)
    assert tape.slots == 4
    np.testing.assert_array_equal(tape.observation[:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(tape.begin, [True, False, False, False])
    np.testing.assert_array_equal(tape.transition, [True, True, True, False])
    np.testing.assert_array_equal(tape.terminated, [False, False, True, False])
    np.testing.assert_array_equal(tape.truncated, [False] * 4)
    np.testing.assert_array_equal(tape.final, [False, False, False, True])
    np.testing.assert_array_equal(tape.reward, [1, 1, 1, 0])
    np.testing.assert_array_equal(tape.action, [0, 1, 2, 0])


def test_termination_wins_where_an_episode_ends_both_ways():
    tape = make(2, terminated=True, truncated=True)
    assert tape.terminated.tolist() == [False, True, False]
    assert not tape.truncated.any()


def test_truncation_is_kept_apart_from_termination():
    tape = make(2, terminated=False, truncated=True)
    assert tape.truncated.tolist() == [False, True, False]
    assert not tape.terminated.any()


def test_padding_belongs_to_no_episode():
    tape = pad(concatenate([make(2), make(1)]), 8)
    np.testing.assert_array_equal(tape.padding, [False] * 5 + [True] * 3)
    assert tape.begin[5:].all() and not tape.transition[5:].any()
    assert not tape.observation[5:].any()
    np.testing.assert_array_equal(empty(3, tape).padding, [True] * 3)


def test_steps_and_episode_numbers_count_from_each_begin():
    tape = jax.tree.map(jnp.asarray, concatenate([make(2), make(1), make(3)]))
    np.testing.assert_array_equal(tape.steps(), [0, 1, 2, 0, 1, 0, 1, 2, 3])
    np.testing.assert_array_equal(tape.episodes(), [0, 0, 0, 1, 1, 2, 2, 2, 2])


def test_next_slot_is_the_neighbour_and_zero_behind_the_last():
    tape = make(2)
    np.testing.assert_array_equal(tape.next_slot(jnp.asarray([5.0, 6.0, 7.0])), [6.0, 7.0, 0.0])


def test_continues_stops_at_ends_at_gaps_and_at_the_last_row():
    off = jnp.zeros(6, bool)
    terminated = off.at[1].set(True)
    truncated = off.at[3].set(True)
    np.testing.assert_array_equal(continues(terminated, truncated), [True, False, True, False, True, False])
    transition = jnp.asarray([True, True, False, True, True, True])
    np.testing.assert_array_equal(continues(off, off, transition), [True, False, False, True, True, False])


@pytest.mark.parametrize(
    ("field", "where", "message"),
    [
        ("observation", 2, "the observation at step 2 is not finite"),
        ("reward", 1, "the reward at step 1 is not finite"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_at_the_tape(field, where, message, value):
    parts = {"observation": np.zeros((4, 2), np.float32), "reward": np.zeros(3, np.float32)}
    parts[field][where] = value
    with pytest.raises(ValueError, match=message):
        episode(parts["observation"], np.zeros(3, np.int32), parts["reward"], True, False)


@pytest.mark.parametrize(("observations", "actions", "rewards"), [(3, 3, 3), (4, 2, 3), (1, 0, 0), (5, 3, 3)])
def test_an_episode_with_the_wrong_number_of_anything_is_refused(observations, actions, rewards):
    with pytest.raises(ValueError, match=r"T \+ 1 observations"):
        episode(np.zeros((observations, 1)), np.zeros(actions, np.int32), np.zeros(rewards), True, False)


def test_an_episode_without_an_end_is_refused():
    with pytest.raises(ValueError, match="got neither"):
        make(2, terminated=False, truncated=False)


def test_a_tape_longer_than_its_room_is_refused():
    with pytest.raises(ValueError, match="4 slots does not fit into 3"):
        pad(make(3), 3)
    with pytest.raises(ValueError, match="at least one"):
        concatenate([])


@pytest.mark.parametrize("lengths", [(1,), (7,), (1, 7), (3, 4, 5)])
@pytest.mark.parametrize("batch_size", [1, 5, 10])
def test_slots_needed_is_enough_for_every_draw_and_tight_for_one(lengths, batch_size):
    rng = np.random.default_rng(0)
    room, worst = slots_needed(batch_size, max(lengths), min(lengths)), 0
    for _ in range(300):
        transitions = slots = 0
        while transitions < batch_size:
            length = int(rng.choice(lengths))
            transitions, slots = transitions + length, slots + length + 1
        worst = max(worst, slots)
    assert worst <= room
    if len(lengths) == 1 and batch_size % lengths[0] == 0:
        assert worst == batch_size + batch_size // lengths[0]
