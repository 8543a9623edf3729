import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinds_of_memory import SMALL
from memoroids.agents.networks import QNetwork
from memoroids.memory import REGISTRY
from memoroids.tape import Tape, episode
from memoroids.tape.segments import split, start_states

FIELDS = ("observation", "begin", "action", "reward", "terminated", "truncated", "transition")


def make(length, *, terminated=True, image=False, seed=0):
    """An episode without zeros, so that any zero in a segment comes from splitting it."""
    rng = np.random.default_rng(seed)
    observation = rng.integers(1, 256, (length + 1, 3, 2, 1)).astype(np.uint8)
    if not image:
        observation = observation.reshape(length + 1, 6).astype(np.float32)
    action = rng.integers(1, 5, length).astype(np.int32)
    return episode(observation, action, rng.uniform(1, 2, length), terminated, not terminated)


def slow_split(tape, length):
    """The segments as arrays, built from lists of slots one transition at a time."""
    blank = {"begin": True, "terminated": False, "truncated": False, "transition": False, "reward": 0.0}
    steps = tape.slots - 1
    rows = []
    for t in range(steps):
        if t % length == 0:
            rows.append([])
        rows[-1].append({name: getattr(tape, name)[t] for name in FIELDS})
        if t % length == length - 1 or t == steps - 1:
            last = {
                "observation": tape.observation[t + 1],
                "begin": False,
                "action": np.zeros_like(tape.action[0]),
                "reward": 0.0,
                "terminated": False,
                "truncated": False,
                "transition": False,
            }
            rows[-1].append(last)
    blank |= {"observation": np.zeros_like(tape.observation[0]), "action": np.zeros_like(tape.action[0])}
    padded = [row + [blank] * (length + 1 - len(row)) for row in rows]
    return {name: np.asarray([[slot[name] for slot in row] for row in padded]) for name in FIELDS}


def assert_split(tape, length):
    rows, want = split(tape, length), slow_split(tape, length)
    for name in FIELDS:
        got = getattr(rows, name)
        assert isinstance(got, np.ndarray) and got.dtype == getattr(tape, name).dtype
        np.testing.assert_array_equal(got, want[name], err_msg=name)
    return rows


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize(
    ("steps", "length"), [(7, 3), (6, 3), (4, 3), (2, 5), (5, 5), (5, 4), (1, 1), (1, 4), (3, 1)], ids=str
)
def test_an_episode_becomes_the_segments_of_a_slow_loop(steps, length, image, terminated):
    tape = make(steps, image=image, terminated=terminated)
    rows = assert_split(tape, length)
    assert rows.observation.shape == (-(-steps // length), length + 1, *tape.observation.shape[1:])
    assert int(rows.transition.sum()) == steps


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 45), st.booleans(), st.integers(0, 9))
def test_whatever_the_lengths_segments_are_those_of_a_slow_loop(steps, length, terminated, seed):
    assert_split(make(steps, terminated=terminated, seed=seed), length)


def test_a_segment_by_hand():
    tape = episode(
        np.asarray([[10.0], [11.0], [12.0], [13.0]], np.float32),
        np.asarray([1, 2, 3], np.int32),
        np.asarray([0.1, 0.2, 0.3]),
        terminated=True,
        truncated=False,
    )
    rows = split(tape, 2)
    # o_2 is the first segment's last observation and the second one's first.
    np.testing.assert_array_equal(rows.observation[..., 0], [[10, 11, 12], [12, 13, 0]])
    np.testing.assert_array_equal(rows.begin, [[True, False, False], [False, False, True]])
    np.testing.assert_array_equal(rows.transition, [[True, True, False], [True, False, False]])
    np.testing.assert_array_equal(rows.action, [[1, 2, 0], [3, 0, 0]])
    np.testing.assert_array_equal(rows.reward, np.asarray([[0.1, 0.2, 0], [0.3, 0, 0]], np.float32))
    np.testing.assert_array_equal(rows.terminated, [[False, False, False], [True, False, False]])
    assert not rows.truncated.any()
    # A row is a tape, which distinguishes its final observation from padding.
    second = Tape(*(getattr(rows, name)[1] for name in FIELDS))
    np.testing.assert_array_equal(second.final, [False, True, False])
    np.testing.assert_array_equal(second.padding, [False, False, True])


def test_the_episode_is_left_as_it_was():
    tape = make(5)
    before = [leaf.copy() for leaf in jax.tree.leaves(tape)]
    rows = split(tape, 5)
    rows.observation[:] = 0
    split(tape, 2)
    for leaf, same in zip(jax.tree.leaves(tape), before, strict=True):
        np.testing.assert_array_equal(leaf, same)


@pytest.mark.parametrize("length", [0, -1])
def test_a_segment_without_a_transition_is_refused(length):
    with pytest.raises(ValueError, match=f"at least 1 transition, got length {length}"):
        split(make(3), length)


@pytest.mark.parametrize("name", SMALL)
def test_start_states_are_what_the_policy_carries_through_the_whole_episode(name):
    network = QNetwork(6, 4, REGISTRY[name], key=jax.random.key(0), width=8, sizes=SMALL[name])
    initial, step = network.initial_state(), eqx.filter_jit(network.step)
    length = 3
    get = jax.jit(lambda rows: start_states(network, rows, initial))
    # Both have three segments; the second fills them completely.
    for steps in (7, 9):
        tape = make(steps, seed=steps)
        tape = eqx.tree_at(lambda t: t.observation, tape, tape.observation / 128 - 1)
        memory, want = initial, []
        for t in range(steps):
            if t % length == 0:
                want.append(memory)
            _, memory = step(jnp.asarray(tape.observation[t]), jnp.asarray(t == 0), memory)
        got = get(split(tape, length))
        assert jax.tree.structure(got) == jax.tree.structure(initial)
        for leaf, *slow in zip(jax.tree.leaves(got), *map(jax.tree.leaves, want), strict=True):
            assert leaf.shape == (3, *slow[0].shape) and leaf.dtype == slow[0].dtype
            np.testing.assert_array_equal(leaf[0], slow[0])
            np.testing.assert_allclose(leaf, np.stack(slow), rtol=2e-5, atol=2e-6)
