import functools

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
from memoroids.replay import SegmentSample, segment_buffer
from memoroids.tape import episode
from memoroids.tape.segments import split

LENGTH, ROWS, LONGEST = 3, 7, 10
FIELDS = ("observation", "begin", "action", "reward", "terminated", "truncated", "transition")
INITIAL = {"sum": jnp.zeros(1), "age": jnp.zeros((), jnp.int32)}


def make(number, length, dtype=np.float32):
    """An episode that encodes its number n and the step t: observation 16 n + t + 1, action t, reward n + t / 16."""
    t = np.arange(length + 1)
    return episode(
        (16 * number + t + 1).astype(dtype)[:, None],
        t[:-1].astype(np.int32),
        number + t[:-1] / 16,
        terminated=number % 2 == 0,
        truncated=number % 2 == 1,
    )


def rows_of(number, length, room=4):
    """The segments of an episode, padded to `room` rows by rows without a transition."""
    rows = split(make(number, length), LENGTH)
    extra = room - rows.begin.shape[0]
    return jax.tree.map(lambda leaf: np.pad(leaf, [(0, extra)] + [(0, 0)] * (leaf.ndim - 1)), rows)


def row(tape, i):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[i], tape)


def assert_row(tape, number, length, k):
    want = row(split(make(number, length), LENGTH), k)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(tape, name), getattr(want, name), err_msg=name)


class Model:
    """A ring as a plain list of segments (episode, its length, index in it), evicted one by one from the oldest."""

    def __init__(self):
        self.segments, self.added = [], 0

    def add(self, number, length):
        new = [(number, length, k) for k in range(-(-length // LENGTH))]
        self.segments = (self.segments + new)[-ROWS:]
        self.added += len(new)


@functools.cache
def buffer_of(state="zero", segments=5):
    return segment_buffer(ROWS * LENGTH, segments, LENGTH, INITIAL, state=state)


def states_of(number, room=4):
    """Stored states that encode the segment they belong to."""
    k = np.arange(room, dtype=np.float32)
    return {"sum": (100 + 10 * number + k)[:, None], "age": (5 * number + k).astype(np.int32)}


def filled(lengths, state="zero", segments=5):
    buffer, model = buffer_of(state, segments), Model()
    ring = buffer.init(rows_of(0, 1))
    for number, length in enumerate(lengths):
        states = (states_of(number),) if state == "stored" else ()
        ring = buffer.add(ring, rows_of(number, length), *states)
        model.add(number, length)
    return buffer, ring, model


def oldest_first(ring):
    return (int(ring.head) - int(ring.live) + np.arange(int(ring.live))) % ROWS


def which(tape, lengths):
    """The (episode, its length, index in it) of every row of a sampled tape."""
    first = np.asarray(tape.observation[:, 0, 0]).astype(int) - 1
    return [(int(code) // 16, lengths[int(code) // 16], int(code) % 16 // LENGTH) for code in first]


@settings(max_examples=40)
@given(st.lists(st.integers(1, LONGEST), min_size=1, max_size=15))
def test_the_ring_holds_the_newest_segments_in_the_order_they_came(lengths):
    buffer, model = buffer_of("stored"), Model()
    ring = buffer.init(rows_of(0, 1))
    for number, length in enumerate(lengths):
        ring = buffer.add(ring, rows_of(number, length), states_of(number))
        model.add(number, length)
        positions = oldest_first(ring)
        assert len(positions) == len(model.segments) and int(ring.added) == model.added
        for position, (n, steps, k) in zip(positions, model.segments, strict=True):
            assert_row(row(ring.tape, position), n, steps, k)
            for leaf, want in zip(
                jax.tree.leaves(row(ring.states, position)), jax.tree.leaves(row(states_of(n), k)), strict=True
            ):
                np.testing.assert_array_equal(leaf, want)


def test_rows_without_a_transition_are_left_out_wherever_they_stand():
    buffer = buffer_of()
    # Two episodes of one and three segments in one call, with empty rows around them.
    gap = jax.tree.map(np.zeros_like, rows_of(0, 1, room=1))
    together = jax.tree.map(lambda *leaves: np.concatenate(leaves), gap, rows_of(0, 2, 1), gap, rows_of(1, 8, 3), gap)
    ring = buffer.add(buffer.init(gap), together)
    apart = buffer.add(buffer.add(buffer.init(gap), rows_of(0, 2)), rows_of(1, 8))
    assert int(ring.live) == int(ring.added) == int(ring.head) == 4
    for a, b in zip(jax.tree.leaves(ring), jax.tree.leaves(apart), strict=True):
        np.testing.assert_array_equal(a, b)


# Four of seven rows in use; the ring full with its head at 0; the ring full with its head within an episode.
@pytest.mark.parametrize("lengths", [[5, 1, 2], [9, 10], [10, 2, 7, 4]], ids=["part", "full", "wrapped"])
def test_every_live_segment_and_so_every_transition_is_equally_likely(lengths):
    buffer, ring, model = filled(lengths)
    draws = 3_000
    sampled = jax.jit(jax.vmap(buffer.sample, in_axes=(None, 0)))(ring, jax.random.split(jax.random.key(0), draws))
    tape = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), sampled.tape)
    drawn = which(tape, lengths)
    assert set(drawn) == set(model.segments)
    counts = np.asarray([drawn.count(segment) for segment in model.segments])
    expected = len(drawn) / len(counts)
    # Chi-square with 6 degrees of freedom at most: 22.5 is exceeded once in a thousand.
    assert np.sum((counts - expected) ** 2 / expected) < 22.5
    weight = np.asarray(sampled.weight).reshape(-1, LENGTH + 1)
    np.testing.assert_array_equal(weight, np.asarray(tape.transition))
    assert weight.dtype == np.float32
    total = {}
    for (number, _, k), weights in zip(drawn, weight, strict=True):
        for t, w in enumerate(weights):
            total[number, k * LENGTH + t] = total.get((number, k * LENGTH + t), 0) + w
    live = {(n, k * LENGTH + t) for n, steps, k in model.segments for t in range(min(LENGTH, steps - k * LENGTH))}
    assert {key for key, value in total.items() if value} == live
    np.testing.assert_allclose([total[key] for key in sorted(live)], expected, rtol=0.06)


def test_a_batch_is_rows_of_the_ring_whole_and_unmixed():
    lengths = [10, 2, 7, 4]
    buffer, ring, model = filled(lengths, "stored", segments=30)
    sample = buffer.sample(ring, jax.random.key(3))
    assert sample.tape.begin.shape == (30, LENGTH + 1) and sample.before is None
    drawn = which(sample.tape, lengths)
    assert set(drawn) == set(model.segments)
    for i, (number, length, k) in enumerate(drawn):
        assert_row(row(sample.tape, i), number, length, k)
        for leaf, want in zip(
            jax.tree.leaves(row(sample.state, i)), jax.tree.leaves(row(states_of(number), k)), strict=True
        ):
            np.testing.assert_array_equal(leaf, want)


@pytest.mark.parametrize("state", ["zero", "stored", "burn-in"])
def test_a_batch_from_an_empty_ring_weighs_nothing(state):
    buffer = buffer_of(state)
    sample = buffer.sample(buffer.init(rows_of(0, 1)), jax.random.key(0))
    assert sample.weight.shape == (5, LENGTH + 1) and not sample.weight.any()


def test_images_keep_their_type():
    buffer = buffer_of()
    rows = split(make(3, 4, np.uint8), LENGTH)
    ring = buffer.add(buffer.init(rows), rows)
    sample = buffer.sample(ring, jax.random.key(0))
    assert ring.tape.observation.dtype == sample.tape.observation.dtype == np.uint8
    assert set(np.asarray(sample.tape.observation[:, 0, 0])) == {49, 52}


def test_a_ring_has_as_many_rows_as_its_capacity_in_segments():
    assert [segment_buffer(capacity, 1, LENGTH, INITIAL).rows for capacity in (3, 5, 6)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("capacity", "segments", "message"), [(2, 5, "0 rows and 5 segments"), (21, 0, "7 rows and 0 segments")]
)
def test_sizes_that_cannot_work_are_refused(capacity, segments, message):
    with pytest.raises(ValueError, match=message):
        segment_buffer(capacity, segments, LENGTH, INITIAL)


def test_an_episode_of_more_segments_than_the_ring_is_refused_and_one_of_as_many_is_not():
    buffer = buffer_of()
    ring = buffer.init(rows_of(0, 1))
    with pytest.raises(ValueError, match="an episode of 8 segments does not fit into a ring of 7: raise capacity"):
        buffer.add(ring, rows_of(0, 22, room=8))
    ring = buffer.add(buffer.add(ring, rows_of(1, 4)), rows_of(2, 21, room=7))
    assert int(ring.live) == ROWS
    for k, position in enumerate(oldest_first(ring)):
        assert_row(row(ring.tape, position), 2, 21, k)


def test_add_donates_its_ring_and_sample_does_not():
    buffer = buffer_of()
    ring = buffer.init(rows_of(0, 1))
    after = buffer.add(ring, rows_of(0, 4))
    assert ring.tape.observation.is_deleted()
    buffer.sample(after, jax.random.key(0))
    assert not after.tape.observation.is_deleted()


def test_the_functions_are_pure_under_jit_and_vmap():
    buffer = buffer_of("burn-in")
    rows = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), rows_of(0, 7), rows_of(1, 4))
    rings = jax.jit(jax.vmap(lambda new: buffer.add(buffer.init(new), new)))(rows)
    samples = jax.jit(jax.vmap(buffer.sample))(rings, jax.random.split(jax.random.key(0), 2))
    for i, length in enumerate((7, 4)):
        for n, _, _ in which(row(samples.tape, i), [7, 4]):
            assert n == i
        assert int(rings.live[i]) == -(-length // LENGTH)


# `SegmentSample.run` with a toy memory whose arithmetic is exact, so that results can be compared exactly.


def toy(scale, observation, begin, state):
    """h_t = h_{t-1} / 2 + scale · o_t and a count of steps, both from 0 at a begin; outputs (T, 3)."""

    def step(state, inputs):
        o, b = inputs
        age = jnp.where(b, 0, state["age"]) + 1
        h = jnp.where(b, 0.0, state["sum"]) / 2 + scale * o
        return {"sum": h, "age": age}, jnp.stack((h[0], age.astype(jnp.float32), b.astype(jnp.float32)))

    state, out = jax.lax.scan(step, state, (observation, begin))
    return out, state


@functools.partial(jax.jit, static_argnames="recompute_next_state")
def run(scale, sample, recompute_next_state=False):
    return sample.run(functools.partial(toy, scale), recompute_next_state=recompute_next_state)


def slow_toy(observations, begins, h=0.0, age=0):
    out = []
    for o, b in zip(observations, begins, strict=True):
        h, age = (0.0 if b else h) / 2 + 2.0 * o, (0 if b else age) + 1
        out.append((h, age, float(b)))
    return out


def feed(number, length, k):
    """Observations, including the last one, and begin flags of a segment, taken from its episode."""
    observation = make(number, length).observation[:, 0]
    first, last = k * LENGTH, min((k + 1) * LENGTH, length)
    return observation[first : last + 1], [t == 0 for t in range(first, last + 1)]


def start_of(state, segment, live):
    """The state at the start of a segment, computed step by step."""
    number, length, k = segment
    if state == "stored":
        return 100.0 + 10 * number + k, 5 * number + k
    if state == "burn-in" and k > 0 and (number, length, k - 1) in live:
        observations, begins = feed(number, length, k - 1)
        return slow_toy(observations[:LENGTH], begins[:LENGTH])[-1][:2]
    return 0.0, 0


@pytest.mark.parametrize("recompute_next_state", [False, True], ids=["tape", "recomputed"])
@pytest.mark.parametrize("state", ["zero", "stored", "burn-in"])
def test_a_segment_runs_from_the_state_that_a_slow_loop_finds(state, recompute_next_state):
    # After wrapping, the oldest row is the second segment of the first episode; the first one is overwritten.
    lengths = [10, 2, 7, 4]
    buffer, ring, model = filled(lengths[:3], state, segments=30)
    assert model.segments[0] == (0, 10, 1)
    sample = buffer.sample(ring, jax.random.key(3))
    drawn = which(sample.tape, lengths)
    assert set(drawn) == set(model.segments)
    if sample.before is not None:
        previous, present = sample.before
        # Memories that ignore begin flags must not be burnt in with another episode either.
        behind = [(number, length, k - 1) for number, length, k in drawn]
        np.testing.assert_array_equal(present, [segment in model.segments for segment in behind])
        for i in np.flatnonzero(present):
            assert_row(row(previous, i), *behind[i])
    out, after = (np.asarray(x).reshape(30, LENGTH + 1, 3) for x in run(2.0, sample, recompute_next_state))
    for i, segment in enumerate(drawn):
        start = start_of(state, segment, model.segments)
        observations, begins = feed(*segment)
        want, steps = slow_toy(observations, begins, *start), len(observations) - 1
        np.testing.assert_array_equal(out[i, : steps + 1], want)
        # Recomputed next states start at the second observation, with the begin flag of the first.
        want = slow_toy(observations[1:], begins[:-1], *start) if recompute_next_state else want[1:]
        np.testing.assert_array_equal(after[i, :steps], want)


def test_the_flat_batch_is_in_the_order_of_the_outputs_and_no_row_looks_into_the_next():
    buffer, ring, _ = filled([10, 2, 7], segments=9)
    sample = buffer.sample(ring, jax.random.key(1))
    tape, weight = sample.flat
    out, after = sample.run(lambda observation, begin, state: (observation, state))
    assert tape.observation.shape == (9 * (LENGTH + 1), 1) and weight.shape == (9 * (LENGTH + 1),)
    np.testing.assert_array_equal(out, tape.observation)
    np.testing.assert_array_equal(weight, np.asarray(tape.transition))
    after = np.asarray(after).reshape(9, LENGTH + 1)
    np.testing.assert_array_equal(after[:, :-1], np.asarray(sample.tape.observation)[:, 1:, 0])
    assert not after[:, -1].any()


def burning(previous_observation, present, begin=False):
    """A batch of the second segment of episode 1 (or, with `begin`, the first), with a preceding segment."""
    tape = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], row(split(make(1, 6), LENGTH), 0 if begin else 1))
    previous = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], row(split(make(1, 6), LENGTH), 0))
    previous = eqx.tree_at(lambda t: t.observation, previous, previous_observation)
    start = jax.tree.map(lambda leaf: leaf[None], INITIAL)
    return SegmentSample(tape, tape.transition.astype(jnp.float32), start, (previous, jnp.asarray([present])))


@jax.jit
def gradients(scale, previous_observation, present, fixed):
    """Gradients of a weighted sum of outputs with respect to the parameter and the burn-in observations.

    `fixed`, if given, replaces burn-in by a constant state.
    """

    def loss(scale, previous_observation):
        sample = burning(previous_observation, present)
        if fixed is not None:
            sample = sample._replace(state=fixed, before=None)
        out, after = sample.run(functools.partial(toy, scale))
        return jnp.sum(out[:, 0]) + 3 * jnp.sum(after[:, 0])

    return jax.value_and_grad(loss, argnums=(0, 1))(scale, previous_observation)


def test_no_gradient_flows_into_what_is_burnt_in():
    previous = jnp.asarray(make(1, 6).observation[None, : LENGTH + 1])
    scale = jnp.asarray(2.0)
    value, (to_scale, to_previous) = gradients(scale, previous, True, None)
    assert not np.asarray(to_previous).any()
    # Value and gradient equal those with the state as a constant, and differ from those without burn-in.
    _, warm = toy(scale, previous[0, :LENGTH], jnp.asarray([True, False, False]), INITIAL)
    fixed = jax.tree.map(lambda leaf: leaf[None], warm)
    want, (to_scale_fixed, _) = gradients(scale, previous, True, fixed)
    assert float(value) == float(want) and float(to_scale) == float(to_scale_fixed)
    without, _ = gradients(scale, previous, False, None)
    assert float(without) != float(value)


@pytest.mark.parametrize("value", [7.0, np.nan, np.inf, -np.inf])
def test_a_neighbour_of_another_episode_leaks_nothing_not_even_a_nan(value):
    scale, nothing = jnp.asarray(2.0), jnp.zeros((1, LENGTH + 1, 1))
    neighbour = jnp.full((1, LENGTH + 1, 1), value)
    plain = gradients(scale, nothing, False, None)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(plain))
    for a, b in zip(jax.tree.leaves(gradients(scale, neighbour, False, None)), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("number", [0, 2], ids=["first", "last"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_of_the_ring_run_the_same_whatever_their_neighbours_hold(value, number):
    lengths = [10, 2, 7]
    buffer, ring, model = filled(lengths, "burn-in", segments=30)
    # In the ring, the newest row, of the last episode, precedes the oldest, the second segment of the first episode.
    assert model.segments[0] == (0, 10, 1)
    of_episode = (ring.tape.observation[:, 0, 0].astype(int) - 1) // 16 == number
    spoilt = eqx.tree_at(
        lambda r: r.tape.observation,
        ring,
        jnp.where(of_episode[:, None, None], jnp.float32(value), ring.tape.observation),
    )
    key = jax.random.key(3)
    drawn = which(buffer.sample(ring, key).tape, lengths)
    assert set(drawn) == set(model.segments)
    clean, dirty = (np.asarray(run(2.0, buffer.sample(r, key))[0]).reshape(30, -1) for r in (ring, spoilt))
    kept = np.asarray([n != number for n, _, _ in drawn])
    np.testing.assert_array_equal(dirty[kept], clean[kept])
    assert np.isfinite(clean).all() and not np.isfinite(dirty[~kept, 0]).any()


@pytest.mark.parametrize("name", ["lru", "linear_transformer", "gru", "mlp"])
def test_burn_in_with_a_real_memory_equals_feeding_it_the_segment_before(name):
    network = QNetwork(1, 2, REGISTRY[name], key=jax.random.key(0), width=8, sizes=SMALL[name])
    buffer = segment_buffer(ROWS * LENGTH, 12, LENGTH, network.initial_state(), state="burn-in")
    ring = buffer.init(rows_of(0, 1))
    lengths = [10, 2, 7]
    model = Model()
    for number, length in enumerate(lengths):
        rows = rows_of(number, length)
        ring = buffer.add(ring, eqx.tree_at(lambda t: t.observation, rows, rows.observation / 16))
        model.add(number, length)
    sample = buffer.sample(ring, jax.random.key(3))
    out, _ = jax.jit(lambda sample: sample.run(network))(sample)
    out = np.asarray(out).reshape(12, LENGTH + 1, 2)
    step = eqx.filter_jit(network.step)
    scaled = eqx.tree_at(lambda t: t.observation, sample.tape, 16 * sample.tape.observation)
    drawn = which(scaled, lengths)
    for i, (number, length, k) in {segment: (i, segment) for i, segment in enumerate(drawn)}.values():
        memory, want = network.initial_state(), []
        burnt = [(number, length, k - 1)] if (number, length, k - 1) in model.segments else []
        for segment in [*burnt, (number, length, k)]:
            observations, begins = feed(*segment)
            # The last observation of the burn-in segment is the first of the segment itself.
            stop = LENGTH if segment in burnt else len(observations)
            want = []
            for o, b in zip(observations[:stop], begins[:stop], strict=True):
                q, memory = step(jnp.asarray([o / 16]), jnp.asarray(b), memory)
                want.append(q)
        np.testing.assert_allclose(out[i, : len(want)], np.stack(want), rtol=2e-5, atol=2e-6)
