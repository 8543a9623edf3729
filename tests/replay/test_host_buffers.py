"""The buffers of the host loop: their contents, when the shape of batches changes, and exact continuation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.replay.host_buffers import HostSegmentBuffer, HostTapeBuffer
from memoroids.tape import episode

INITIAL = jnp.zeros(2)
LENGTHS = [5, 1, 9, 4, 2, 7, 12, 1, 3, 8, 4, 6]


def make(number, length):
    """An episode that encodes its number n and the step t: observation 100 n + t + 1."""
    observation = (100 * number + np.arange(length + 1) + 1).astype(np.float32)[:, None]
    return episode(observation, np.zeros(length, np.int32), np.ones(length), number % 2 == 0, number % 2 == 1)


def entering(params, rows):
    """A memory state for each segment that encodes the parameters and the first observation of the segment."""
    first = jnp.asarray(rows.observation)[:, 0, 0]
    return jnp.stack((jnp.broadcast_to(params, first.shape), first), axis=1)


def segments(batch_size=24, length=4, capacity=400, **options):
    if options.get("state") == "stored":
        options["states"] = entering
    return HostSegmentBuffer(capacity, batch_size, length, INITIAL, **options)


def fill(buffer, lengths, first=0):
    return [
        buffer.add(make(number, length), jnp.float32(number / 8)) for number, length in enumerate(lengths, start=first)
    ]


def copied(tree):
    return jax.tree.map(np.array, tree)


def assert_equal(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


def mean_transitions(buffer, draws=2_000):
    keys = jax.random.split(jax.random.key(0), draws)
    weight = jax.jit(jax.vmap(lambda key: buffer.functions.sample(buffer.state, key).weight))(keys)
    return float(np.asarray(weight).reshape(draws, -1).sum(1).mean())


@pytest.mark.parametrize(("batch_size", "length", "expected"), [(24, 4, 6), (23, 4, 5), (27, 4, 6), (3, 4, 1)])
def test_counting_slots_a_batch_has_as_many_segments_as_whole_ones_fit(batch_size, length, expected):
    buffer = segments(batch_size, length)
    assert not any(fill(buffer, LENGTHS[:4]))
    assert buffer.bounds == (expected, 0)
    sample = buffer.functions.sample(buffer.state, jax.random.key(0))
    assert sample.tape.begin.shape == (expected, length + 1)
    assert int(buffer.state.added) == sum(-(-n // length) for n in LENGTHS[:4])


@pytest.mark.parametrize("lengths", [LENGTHS, [1] * 12, [1, 30] * 6], ids=["mixed", "ones", "two"])
def test_counting_transitions_a_batch_has_as_many_as_asked_for_on_average(lengths):
    buffer = segments(200, 4, count="transitions")
    fill(buffer, lengths)
    # The number of segments may be off by 5 %; the rest of the tolerance is for chance.
    np.testing.assert_allclose(mean_transitions(buffer), 200, rtol=0.055)
    np.testing.assert_allclose(buffer.bounds[0], 200 * sum(-(-n // 4) for n in lengths) / sum(lengths), rtol=0.05)


def test_counting_slots_a_batch_has_fewer_transitions_than_asked_for():
    buffer = segments(200, 4)
    fill(buffer, LENGTHS)
    np.testing.assert_allclose(
        mean_transitions(buffer), 50 * sum(LENGTHS) / sum(-(-n // 4) for n in LENGTHS), rtol=0.02
    )


@pytest.mark.parametrize(("batch_size", "length"), [(200, 4), (9, 4), (3, 4), (1, 10)])
def test_the_shape_of_batches_changes_a_few_times_only_and_then_says_so(batch_size, length):
    buffer = segments(batch_size, length, count="transitions")
    shapes, told = [buffer.bounds], []
    for number, steps in enumerate(itertools.islice(itertools.cycle(LENGTHS), 60)):
        functions = buffer.functions
        told.append(buffer.add(make(number, steps)))
        shapes.append(buffer.bounds)
        # As long as no change is reported, the same functions, and their compilations, remain in use.
        assert (buffer.functions is not functions) == told[-1]
        assert buffer.functions.segments == buffer.bounds[0]
    assert told == [a != b for a, b in itertools.pairwise(shapes)]
    assert sum(told) <= 10 and not any(told[24:])


@pytest.mark.parametrize("state", ["zero", "stored", "burn-in"])
def test_every_episode_is_stored_with_the_states_of_the_parameters_it_came_with(state):
    buffer = segments(state=state)
    fill(buffer, LENGTHS)
    ring = copied(buffer.state)
    live = sum(-(-n // 4) for n in LENGTHS)
    assert int(ring.live) == int(ring.added) == live
    assert int(ring.tape.transition.sum()) == sum(LENGTHS)
    first = [(n, 4 * k) for n, steps in enumerate(LENGTHS) for k in range(-(-steps // 4))]
    np.testing.assert_array_equal(ring.tape.observation[:live, 0, 0], [100 * n + t + 1 for n, t in first])
    if state == "stored":
        np.testing.assert_array_equal(ring.states[:live], [(n / 8, 100 * n + t + 1) for n, t in first])
    else:
        assert ring.states is None


def test_an_episode_that_does_not_fit_is_refused_and_the_next_one_enters():
    buffer = segments(capacity=20, count="transitions")
    with pytest.raises(ValueError, match="an episode of 6 segments does not fit into a ring of 5"):
        buffer.add(make(0, 21))
    # Five segments fill the ring, although padding to a power of two would exceed it.
    buffer.add(make(1, 20))
    assert int(buffer.state.added) == int(buffer.state.live) == 5
    buffer.add(make(2, 3))
    np.testing.assert_array_equal(copied(buffer.state).tape.observation[:, 0, 0], [201, 105, 109, 113, 117])


@pytest.mark.parametrize(("state", "count"), [("zero", "transitions"), ("stored", "transitions"), ("stored", "slots")])
def test_a_restored_segment_buffer_goes_on_as_the_first_would_have(state, count):
    def buffer(**more):
        return segments(state=state, count=count, capacity=60, **more)

    straight = buffer()
    fill(straight, LENGTHS[:7])
    bounds, kept = straight.bounds, copied(straight.state)
    after = buffer(bounds=bounds)
    like = after.like(make(0, 1))
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(like)] == [(a.shape, a.dtype) for a in jax.tree.leaves(kept)]
    after.restore(jax.tree.map(jnp.asarray, kept), sum(LENGTHS[:7]))
    for number, length in enumerate(LENGTHS[7:], start=7):
        assert after.bounds == straight.bounds
        params = jnp.float32(number / 8)
        assert after.add(make(number, length), params) == straight.add(make(number, length), params)
    assert after.bounds == straight.bounds
    assert_equal(after.state, straight.state)
    key = jax.random.key(0)
    assert_equal(after.functions.sample(after.state, key), straight.functions.sample(straight.state, key))
    # The ring of 15 rows has wrapped, and only "transitions" changes the shape of batches.
    assert int(after.state.added) == sum(-(-n // 4) for n in LENGTHS) > 15
    assert (after.bounds == (6, 0)) == (count == "slots")


def test_a_tape_buffer_makes_room_by_powers_of_two_and_says_so():
    buffer = HostTapeBuffer(200, 20)
    assert buffer.functions is None
    seen = []
    for number, length in enumerate([5, 4, 8, 3, 9, 16]):
        functions = buffer.functions
        changed = buffer.add(make(number, length))
        assert changed == (buffer.functions is not functions)
        seen.append((changed, buffer.bounds))
    assert seen == [
        (True, (4, 8)),
        (False, (4, 8)),
        (False, (4, 8)),
        (True, (2, 8)),
        (True, (2, 16)),
        (False, (2, 16)),
    ]
    assert (int(buffer.state.added), int(buffer.state.live), int(buffer.state.refused)) == (6, 6, 0)
    assert int(buffer.state.tape.transition.sum()) == 45


def test_a_declared_length_is_taken_at_its_word_until_a_longer_episode_comes():
    buffer = HostTapeBuffer(200, 20, declared=10)
    assert buffer.add(make(0, 10)) and buffer.bounds == (10, 10)
    assert buffer.add(make(1, 7)) and buffer.bounds == (4, 10)
    assert buffer.add(make(2, 11)) and buffer.bounds == (4, 16)
    assert not buffer.add(make(3, 16))
    assert (int(buffer.state.live), int(buffer.state.refused)) == (4, 0)


def test_a_bound_rounded_up_past_the_ring_is_not_an_episode_that_does_not_fit():
    buffer = HostTapeBuffer(12, 4)
    buffer.add(make(0, 9))
    assert buffer.bounds == (8, 11) and int(buffer.state.live) == 1
    with pytest.raises(ValueError, match="an episode of 12 transitions takes 13 slots, the ring has only 12"):
        buffer.add(make(1, 12))


def test_a_restored_tape_buffer_goes_on_as_the_first_would_have():
    lengths = [9, 12, 8, 16, 10, 11, 9, 8]
    straight = HostTapeBuffer(60, 20)
    fill(straight, lengths[:3])
    kept = copied(straight.state)
    after = HostTapeBuffer(60, 20, bounds=straight.bounds)
    like = after.like(make(0, 1))
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(like)] == [(a.shape, a.dtype) for a in jax.tree.leaves(kept)]
    after.restore(jax.tree.map(jnp.asarray, kept), sum(lengths[:3]))
    for number, length in enumerate(lengths[3:], start=3):
        assert after.add(make(number, length)) == straight.add(make(number, length))
        assert after.bounds == straight.bounds == (8, 16)
    assert_equal(after.state, straight.state)
    key = jax.random.key(0)
    assert_equal(after.functions.sample(after.state, key), straight.functions.sample(straight.state, key))
