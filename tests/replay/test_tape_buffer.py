import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered import make, read

from memoroids.replay import tape_buffer
from memoroids.tape import concatenate, pad


class Model:
    """A ring as a plain list of episodes, in which writing evicts the oldest whole episodes."""

    def __init__(self, capacity):
        self.capacity, self.written, self.episodes = capacity, 0, []

    def add(self, number, length):
        self.written += length + 1
        self.episodes.append((number, length, self.written - length - 1))
        self.episodes = [e for e in self.episodes if e[2] >= self.written - self.capacity]

    def live(self):
        return [(number, length) for number, length, _ in self.episodes]


def stored(state, capacity):
    """The (number, length) of all live episodes in the table, oldest first, each read back from the ring."""
    table = capacity // 2
    out = []
    for k in range(int(state.live)):
        entry = (int(state.first) + k) % table
        start, length = int(state.start[entry]), int(state.length[entry])
        positions = (start + np.arange(length + 1)) % capacity
        out += read(jax.tree.map(lambda leaf, p=positions: np.asarray(leaf)[p], state.tape))
        assert out[-1][1] == length
    return out


CAPACITY = 20


@pytest.fixture(scope="module")
def small():
    return tape_buffer(CAPACITY, batch_size=6, max_length=8)


def chunk(tape, room=10):
    return pad(tape, room)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=25))
def test_the_ring_holds_what_a_plain_list_holds(lengths):
    buffer = tape_buffer_cached()
    state, model = buffer.init(make(0, 1)), Model(CAPACITY)
    for number, length in enumerate(lengths):
        state = buffer.add(state, chunk(make(number, length)))
        model.add(number, length)
        assert stored(state, CAPACITY) == model.live()
    assert int(state.added) == len(lengths) and int(state.refused) == 0


_BUFFER = {}


def tape_buffer_cached():
    if "small" not in _BUFFER:
        _BUFFER["small"] = tape_buffer(CAPACITY, batch_size=6, max_length=8)
    return _BUFFER["small"]


@settings(max_examples=60)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=15), st.lists(st.integers(1, 10), min_size=60, max_size=60))
def test_pieces_of_episodes_enter_as_the_whole_would(lengths, cuts):
    buffer = tape_buffer_cached()
    stream = concatenate([make(number, length) for number, length in enumerate(lengths)])
    state, model = buffer.init(stream), Model(CAPACITY)
    begun = done = 0
    for cut in cuts:
        piece = jax.tree.map(lambda leaf, a=begun, b=begun + cut: leaf[a:b], stream)
        if piece.slots == 0:
            break
        state = buffer.add(state, chunk(piece))
        begun += piece.slots
        while done < len(lengths) and sum(lengths[: done + 1]) + done + 1 <= begun:
            model.add(done, lengths[done])
            done += 1
        # An unfinished episode at the head has already evicted old ones, but is not live itself.
        floor = begun - CAPACITY
        assert stored(state, CAPACITY) == [e[:2] for e in model.episodes if e[2] >= floor]
    assert done == len(lengths)


def test_several_episodes_in_one_call_equal_one_by_one(small):
    lengths = [3, 1, 2]
    tapes = [make(n, length) for n, length in enumerate(lengths)]
    at_once = small.add(small.init(tapes[0]), chunk(concatenate(tapes)))
    one_by_one = small.init(tapes[0])
    for tape in tapes:
        one_by_one = small.add(one_by_one, chunk(tape))
    for a, b in zip(jax.tree.leaves(at_once), jax.tree.leaves(one_by_one), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_abandoned_episode_is_never_sampled(small):
    state = small.init(make(0, 1))
    piece = jax.tree.map(lambda leaf: leaf[:3], make(0, 5))
    state = small.add(state, chunk(piece))
    assert int(state.live) == 0
    state = small.add(state, chunk(make(1, 2)))
    assert stored(state, CAPACITY) == [(1, 2)]
    tail = jax.tree.map(lambda leaf: leaf[3:], make(2, 5))
    state = small.add(state, chunk(tail))
    assert stored(state, CAPACITY) == [(1, 2)]


@pytest.mark.parametrize("min_length", [1, 2])
def test_every_whole_episode_is_equally_likely_the_newest_too(min_length):
    lengths = [2, 8, 3, 5, 2, 4]
    buffer = tape_buffer(64, batch_size=1, max_length=8, min_length=min_length)
    state = buffer.init(make(0, 1))
    for number, length in enumerate(lengths):
        state = buffer.add(state, chunk(make(number, length)))
    draws = 6_000
    batch = jax.vmap(lambda key: buffer.sample(state, key))(jax.random.split(jax.random.key(0), draws))
    first = np.asarray(batch.tape.observation[:, 0, 0]).astype(int) // 1000
    counts = np.bincount(first, minlength=len(lengths))
    expected = draws / len(lengths)
    # Chi-square with 5 degrees of freedom: 20.5 is exceeded once in a thousand.
    assert np.sum((counts - expected) ** 2 / expected) < 20.5


def test_a_batch_favours_neither_short_episodes_nor_early_steps():
    lengths = [1, 8, 2, 7, 3]
    buffer = tape_buffer(64, batch_size=10, max_length=8)
    state = buffer.init(make(0, 1))
    for number, length in enumerate(lengths):
        state = buffer.add(state, chunk(make(number, length)))
    draws = 20_000
    batch = jax.vmap(lambda key: buffer.sample(state, key))(jax.random.split(jax.random.key(1), draws))
    code = np.asarray(batch.tape.observation[..., 0]).astype(int)[np.asarray(batch.weight) > 0]
    counts = np.asarray([np.sum(code == 1000 * n + t) for n, length in enumerate(lengths) for t in range(length)])
    # Each of the 21 stored transitions has the same expected weight in the loss.
    np.testing.assert_allclose(counts / counts.mean(), 1.0, atol=0.05)


def test_cutting_at_the_batch_size_favours_early_steps_and_is_only_an_option():
    lengths = [8, 8, 8]
    weights = {}
    for cut in (False, True):
        buffer = tape_buffer(64, batch_size=12, max_length=8, cut=cut)
        state = buffer.init(make(0, 1))
        for number, length in enumerate(lengths):
            state = buffer.add(state, chunk(make(number, length)))
        batch = jax.vmap(lambda key, b=buffer, s=state: b.sample(s, key))(jax.random.split(jax.random.key(1), 200))
        step = np.asarray(batch.tape.observation[..., 0]).astype(int) % 1000
        weights[cut] = [np.asarray(batch.weight)[step == t].sum() for t in range(8)]
        if cut:
            np.testing.assert_array_equal(np.asarray(batch.weight).sum(1), 12)
    assert len(set(weights[False])) == 1
    assert weights[True][:4] == [400] * 4 and weights[True][4:] == [200] * 4


@settings(max_examples=40)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=20), st.integers(0, 2**31 - 1))
def test_a_batch_is_whole_live_episodes_until_it_is_full(lengths, seed):
    buffer = tape_buffer_cached()
    state, model = buffer.init(make(0, 1)), Model(CAPACITY)
    for number, length in enumerate(lengths):
        state = buffer.add(state, chunk(make(number, length)))
        model.add(number, length)
    batch = buffer.sample(state, jax.random.key(seed))
    drawn = read(batch.tape)
    assert batch.tape.slots == buffer.slots
    assert set(drawn) <= set(model.live())
    transitions = [length for _, length in drawn]
    assert sum(transitions) >= buffer.batch_size > sum(transitions[:-1])
    np.testing.assert_array_equal(batch.weight, np.asarray(batch.tape.transition, np.float32))


def test_a_batch_from_an_empty_buffer_weighs_nothing(small):
    batch = small.sample(small.init(make(0, 1)), jax.random.key(0))
    assert not batch.weight.any() and batch.tape.padding.all()


def test_an_episode_outside_the_bounds_is_refused_and_counted():
    buffer = tape_buffer(CAPACITY, batch_size=4, max_length=5, min_length=2)
    state = buffer.init(make(0, 1))
    for number, length in enumerate([6, 2, 1, 5]):
        state = buffer.add(state, chunk(make(number, length)))
    assert stored(state, CAPACITY) == [(1, 2), (3, 5)]
    assert int(state.refused) == 2 and int(state.added) == 2


def test_an_episode_longer_than_the_ring_is_refused_and_the_next_ones_enter():
    buffer = tape_buffer(CAPACITY, batch_size=4, max_length=8)
    long = make(0, 2 * CAPACITY + 3)
    state = buffer.init(long)
    for begun in range(0, long.slots, 10):
        state = buffer.add(state, chunk(jax.tree.map(lambda leaf, b=begun: leaf[b : b + 10], long)))
        assert int(state.live) == 0
    assert int(state.refused) == 1
    state = buffer.add(state, chunk(make(1, 8)))
    assert stored(state, CAPACITY) == [(1, 8)]


def test_a_tape_with_more_slots_than_the_ring_is_refused_clearly():
    buffer = tape_buffer(CAPACITY, batch_size=4, max_length=8)
    long = make(0, CAPACITY)
    with pytest.raises(ValueError, match="a tape of 21 slots does not fit into a ring of 20: raise capacity"):
        buffer.add(buffer.init(long), long)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"min_length": 0}, "1 <= min_length <= max_length"),
        ({"min_length": 9}, "1 <= min_length <= max_length"),
        ({"max_length": 20}, "takes 21 slots, the ring has only 20"),
    ],
)
def test_sizes_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tape_buffer(**({"capacity": 20, "batch_size": 4, "max_length": 8} | arguments))


def test_add_donates_its_state_and_sample_does_not(small):
    state = small.init(make(0, 1))
    after = small.add(state, chunk(make(0, 3)))
    assert state.tape.observation.is_deleted()
    small.sample(after, jax.random.key(0))
    assert not after.tape.observation.is_deleted()


def test_the_functions_are_pure_under_jit_and_vmap():
    buffer = tape_buffer(CAPACITY, batch_size=3, max_length=4)
    tapes = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), make(0, 4), make(1, 4))
    states = jax.jit(jax.vmap(lambda tape: buffer.add(buffer.init(tape), tape)))(tapes)
    batches = jax.jit(jax.vmap(buffer.sample))(states, jax.random.split(jax.random.key(0), 2))
    for i in range(2):
        assert set(read(jax.tree.map(lambda leaf, i=i: leaf[i], batches.tape))) == {(i, 4)}
