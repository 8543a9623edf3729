import functools
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from numbered import make, read

from memoroids.agents.losses import weighted_mean
from memoroids.replay import PriorityConfig, Sample, ring_buffer, tape_buffer
from memoroids.replay.priorities import draw_proportionally, sums
from memoroids.tape import Tape, concatenate, empty

RINGS, CAPACITY, SHORTEST, LONGEST, WIDTH, BATCH = 3, 24, 2, 7, 8, 10
SIZES = {"capacity": CAPACITY, "batch_size": BATCH, "max_length": LONGEST, "min_length": SHORTEST}
PRIORITY = PriorityConfig(exponent=0.7, correction=0.5, mix=0.8, floor=0.01)
# Nearly all the time of these tests is compilation.
QUICKLY = {"xla_backend_optimization_level": 0}


@functools.cache
def jitted(rings=RINGS, **changes):
    """A buffer with compiled functions, cached for each set of sizes."""
    buffer = ring_buffer(rings, **SIZES | changes)
    names = ("add", "sample", "update_priorities")
    return buffer._replace(**{name: jax.jit(getattr(buffer, name), compiler_options=QUICKLY) for name in names})


def piece(tape, room=WIDTH, where=None):
    """These slots among padding: at positions `where` of `room` slots, by default the first ones."""
    where = np.arange(tape.slots) if where is None else where
    blank = jax.tree.map(np.array, empty(room, tape))
    for leaf, values in zip(jax.tree.leaves(blank), jax.tree.leaves(tape), strict=True):
        leaf[where] = values
    return blank


def nothing(room=WIDTH):
    return piece(jax.tree.map(lambda leaf: leaf[:0], make(0, 1)), room)


def stack(pieces):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *pieces)


def ring_of(state, r):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[r], state._replace(largest=None))


def stored(state, r):
    """The (number, length) of all live episodes in the table of ring r, oldest first, each read back from the ring."""
    ring = ring_of(state, r)
    capacity, table = ring.tape.begin.shape[0], ring.start.shape[0]
    out = []
    for k in range(int(ring.live)):
        entry = (int(ring.first) + k) % table
        positions = (int(ring.start[entry]) + np.arange(int(ring.length[entry]) + 1)) % capacity
        out += read(jax.tree.map(lambda leaf, p=positions: leaf[p], ring.tape))
        assert out[-1][1] == ring.length[entry]
    return out


def fill(buffer, lengths, room=None):
    """Adds whole episodes of `lengths[r]` to ring r, numbered from 100 r on, one per ring in each call."""
    room = room or max(max(row, default=0) for row in lengths) + 1
    state = buffer.init(make(0, 1))
    for i in range(max(map(len, lengths))):
        turn = [
            piece(make(100 * r + i, row[i]), room) if i < len(row) else nothing(room) for r, row in enumerate(lengths)
        ]
        state = buffer.add(state, stack(turn))
    return state


class Model:
    """One ring as a list of the last `capacity` slots written, from which whole episodes can be read."""

    def __init__(self, capacity=CAPACITY, bounds=(SHORTEST, LONGEST)):
        self.slots, self.bounds = deque(maxlen=capacity), bounds
        self.added = self.refused = 0

    def add(self, slots):
        for number, t, length in slots:
            self.slots.append((number, t, length))
            if t == length and self.complete_at(len(self.slots) - 1, forgotten=True):
                fits = self.bounds[0] <= length <= self.bounds[1]
                self.added, self.refused = self.added + fits, self.refused + (not fits)

    def complete_at(self, end, forgotten=False):
        """Whether a whole episode ends at slot `end`; with `forgotten`, its first slots may be overwritten already."""
        number, _, length = self.slots[end]
        wanted = [(number, t, length) for t in range(length + 1)]
        there = list(self.slots)[max(end - length, 0) : end + 1]
        return there == wanted if end >= length else forgotten and there == wanted[-len(there) :]

    def live(self):
        ends = [i for i, (_, t, length) in enumerate(self.slots) if t == length and self.complete_at(i)]
        found = [(self.slots[i][0], self.slots[i][2]) for i in ends]
        return [(n, length) for n, length in found if self.bounds[0] <= length <= self.bounds[1]]


def tape_of(batch, i):
    """The i-th tape of a batch of one or several tapes."""
    return batch.tape if batch.weight.ndim == 1 else jax.tree.map(lambda leaf: leaf[i], batch.tape)


def chi_square(counts, probabilities):
    expected = np.asarray(probabilities) * np.sum(counts)
    return np.sum((counts - expected) ** 2 / expected)


# One ring's part of a call: the lengths of episodes that begin (1, 8 and 9 are refused), the number of slots, where
# they are among padding, and whether the unfinished episode is abandoned.
PART = st.tuples(
    st.lists(st.integers(1, 9), min_size=4, max_size=4),
    st.integers(0, WIDTH),
    st.permutations(range(WIDTH)),
    st.sampled_from([False] * 9 + [True]),
)


class Stream:
    """The input of one ring: numbered episodes, cut anywhere, and their slots as `Model` represents them."""

    def __init__(self, r):
        self.number, self.waiting, self.tape = 40 * r - 1, [], None

    def take(self, lengths, count, order, give_up):
        if give_up:
            self.waiting = []
        taken = []
        for length in (*lengths, 9):
            if len(taken) >= count:
                break
            if not self.waiting:
                self.number += 1
                tape = make(self.number, length)
                self.waiting = [
                    (jax.tree.map(lambda leaf, t=t: leaf[t : t + 1], tape), (self.number, t, length))
                    for t in range(length + 1)
                ]
            now = count - len(taken)
            taken, self.waiting = taken + self.waiting[:now], self.waiting[now:]
        if not taken:
            return nothing(), []
        slots = concatenate([tape for tape, _ in taken])
        return piece(slots, where=sorted(order[: slots.slots])), [slot for _, slot in taken]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(*[PART] * RINGS), min_size=1, max_size=16), st.sampled_from([None, PRIORITY]), st.integers(0, 99)
)
def test_the_rings_hold_and_give_what_plain_lists_of_slots_do(turns, priority, seed):
    buffer = jitted(priority=priority)
    state = buffer.init(make(0, 1))
    streams, models = [Stream(r) for r in range(RINGS)], [Model() for _ in range(RINGS)]
    for turn in turns:
        parts = [stream.take(*part) for stream, part in zip(streams, turn, strict=True)]
        state = buffer.add(state, stack([tape for tape, _ in parts]))
        for model, (_, slots) in zip(models, parts, strict=True):
            model.add(slots)
    live = [model.live() for model in models]
    assert [stored(state, r) for r in range(RINGS)] == live
    assert state.live.tolist() == [len(row) for row in live]
    assert state.added.tolist() == [model.added for model in models]
    assert state.refused.tolist() == [model.refused for model in models]
    batch = buffer.sample(state, jax.random.key(seed))
    drawn = read(batch.tape)
    assert batch.tape.slots == buffer.slots
    lengths = [length for _, length in drawn]
    assert set(drawn) <= {episode for row in live for episode in row}
    if any(live):
        assert sum(lengths) >= BATCH > sum(lengths[:-1])
    else:
        assert not drawn
    assert ((np.asarray(batch.weight) > 0) == np.asarray(batch.tape.transition)).all()
    if priority is None:
        np.testing.assert_array_equal(batch.weight, np.asarray(batch.tape.transition, np.float32))
    else:
        assert all(value == 1 for r in range(RINGS) for value in table_of(state, r).values())


@pytest.mark.parametrize(("shortest", "cut"), [(1, False), (2, True)])
def test_each_ring_is_a_tape_buffer_and_one_ring_is_one_bit_for_bit(shortest, cut, rng):
    sizes = {"batch_size": BATCH, "max_length": LONGEST, "min_length": shortest, "cut": cut}
    alone, one = tape_buffer(CAPACITY, **sizes), jitted(1, **sizes)
    several = jitted(**sizes)
    assert one.slots == alone.slots
    states = [alone.init(make(0, 1)) for _ in range(RINGS)]
    first, all_of_them = one.init(make(0, 1)), several.init(make(0, 1))
    streams = [Stream(r) for r in range(RINGS)]
    for i in range(30):
        parts = []
        for stream in streams:
            order = rng.permutation(WIDTH).tolist()
            parts.append(stream.take(rng.integers(1, 10, 4).tolist(), int(rng.integers(WIDTH + 1)), order, False)[0])
        states = [alone.add(state, part) for state, part in zip(states, parts, strict=True)]
        all_of_them = several.add(all_of_them, stack(parts))
        first = one.add(first, stack(parts[:1]))
        want = alone.sample(states[0], jax.random.key(i))
        got = one.sample(first, jax.random.key(i))
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_array_equal(a, b)
        # Tables differ in size, so the episodes in them are compared.
        for r, state in enumerate(states if i % 6 == 5 else ()):
            assert stored(all_of_them, r) == stored(jax.tree.map(lambda leaf: leaf[None], state), 0)
            mine = ring_of(all_of_them, r)
            for name in ("tape", "head", "live", "open_length", "added", "refused"):
                found, wanted = jax.tree.leaves(getattr(mine, name)), jax.tree.leaves(getattr(state, name))
                for a, b in zip(found, wanted, strict=True):
                    np.testing.assert_array_equal(a, b)
    assert min(int(state.added) for state in states) > 10 and min(int(state.refused) for state in states) > 1


def test_the_table_has_room_for_the_shortest_episodes_and_no_more():
    for shortest in (1, 6):
        buffer = jitted(2, min_length=shortest)
        state = fill(buffer, [[shortest] * 30, [LONGEST] * 30], room=WIDTH)
        assert state.start.shape == (2, CAPACITY // (shortest + 1))
        assert state.live.tolist() == [CAPACITY // (shortest + 1), CAPACITY // (LONGEST + 1)]
        assert [len(stored(state, r)) for r in range(2)] == state.live.tolist()


# An empty ring, one with a single episode, one that has wrapped, and episodes of all lengths.
UNEVEN = [[3], [2, 7, 5, 4, 6, 2, 2, 3], [], [7, 7, 2]]


@functools.cache
def uneven(priority=None):
    buffer = jitted(4, batch_size=1, priority=priority)
    state = fill(buffer, UNEVEN)
    live = [episode for r in range(4) for episode in stored(state, r)]
    assert len(live) == 1 + 5 + 0 + 3
    return buffer, state, live


def first_of(batch):
    """The number of the first episode on each of several tapes."""
    return np.asarray(batch.tape.observation[..., 0, 0]).astype(int).ravel() // 1000


def test_every_episode_of_every_ring_is_equally_likely():
    buffer, state, live = uneven()
    batch = jax.vmap(lambda key: buffer.sample(state, key))(jax.random.split(jax.random.key(0), 9_000))
    drawn = first_of(batch)
    counts = [int(np.sum(drawn == number)) for number, _ in live]
    assert sum(counts) == 9_000
    # Chi-square with 8 degrees of freedom: 26.1 is exceeded once in a thousand.
    assert chi_square(counts, np.full(9, 1 / 9)) < 26.1


@pytest.mark.parametrize("tapes", [1, 2])
def test_a_batch_favours_neither_short_episodes_nor_early_steps(tapes):
    buffer = jitted(2, capacity=64, batch_size=12, min_length=1, tapes=tapes)
    lengths = [[1, 7], [2, 6, 3]]
    state = fill(buffer, lengths)
    batch = jax.vmap(lambda key: buffer.sample(state, key))(jax.random.split(jax.random.key(1), 20_000))
    code = np.asarray(batch.tape.observation[..., 0]).astype(int)[np.asarray(batch.weight) > 0]
    counts = [
        np.sum(code == 1000 * (100 * r + i) + t)
        for r, row in enumerate(lengths)
        for i, length in enumerate(row)
        for t in range(length)
    ]
    # Each of the 19 stored transitions has the same expected weight in the loss.
    np.testing.assert_allclose(np.asarray(counts) / np.mean(counts), 1.0, atol=0.05)


def test_several_tapes_share_a_batch_and_are_drawn_apart():
    buffer = jitted(tapes=2)
    state = fill(buffer, [[2, 5], [7, 3], [4]])
    live = {episode for r in range(RINGS) for episode in stored(state, r)}
    single = jitted(batch_size=BATCH // 2)
    assert buffer.slots == single.slots
    differ = 0
    for seed in range(20):
        key = jax.random.key(seed)
        batch = buffer.sample(state, key)
        assert batch.tape.begin.shape == batch.weight.shape == (2, buffer.slots)
        lists = [read(tape_of(batch, i)) for i in range(2)]
        for i, drawn in enumerate(lists):
            lengths = [length for _, length in drawn]
            assert set(drawn) <= live and sum(lengths) >= BATCH // 2 > sum(lengths[:-1])
            alone = single.sample(state, jax.random.split(key)[i])
            np.testing.assert_array_equal(alone.tape.observation, batch.tape.observation[i])
            np.testing.assert_array_equal(alone.weight, batch.weight[i])
        differ += lists[0] != lists[1]
    assert differ > 15


def test_several_tapes_are_run_apart_and_read_as_one():
    buffer = jitted(tapes=2)
    batch = buffer.sample(fill(buffer, [[2, 5], [7, 3], [4]]), jax.random.key(3))

    def network(observation, begin):
        # A cumulative sum would reveal a tape that continues into the next one.
        return {"sum": jnp.cumsum(observation[:, 0]), "begin": begin}, None

    tape, weight = batch.flat
    for recompute_next_state in (False, True):
        out, after = batch.run(network, recompute_next_state=recompute_next_state)
        for i in range(2):
            rows = slice(i * buffer.slots, (i + 1) * buffer.slots)
            one = Sample(tape_of(batch, i), batch.weight[i])
            for got, want in zip(
                (out, after), one.run(network, recompute_next_state=recompute_next_state), strict=True
            ):
                np.testing.assert_array_equal(got["sum"][rows], want["sum"])
                np.testing.assert_array_equal(got["begin"][rows], want["begin"])
            np.testing.assert_array_equal(tape.observation[rows], batch.tape.observation[i])
            np.testing.assert_array_equal(weight[rows], batch.weight[i])


# --- priorities


def slow_priority(errors, config=PRIORITY):
    errors = [abs(float(e)) for e in errors]
    mixed = config.mix * max(errors) + (1 - config.mix) * sum(errors) / len(errors)
    return (mixed + config.floor) ** config.exponent


def table_of(state, r):
    """The priorities of the live episodes of ring r, by their numbers."""
    ring = ring_of(state, r)
    entries = (int(ring.first) + np.arange(int(ring.live))) % ring.start.shape[0]
    return {number: float(ring.priority[e]) for (number, _), e in zip(stored(state, r), entries, strict=True)}


@pytest.mark.parametrize("tapes", [1, 2])
def test_priorities_follow_a_slow_loop_through_adds_and_updates(tapes, rng):
    """Updates come after adds that have overwritten some of the episodes drawn; some errors are not finite."""
    buffer = jitted(tapes=tapes, priority=PRIORITY)
    state = buffer.init(make(0, 1))
    known, largest, number, pending, twice, gone, broken = {}, 1.0, [0, 100, 200], None, 0, 0, 0
    for turn in range(60):
        pieces = []
        for r in range(RINGS):
            length = int(rng.integers(SHORTEST, LONGEST + 1))
            pieces.append(piece(make(number[r], length)) if rng.random() < 0.6 else nothing())
            if pieces[-1].transition.any():
                known[number[r]] = largest
                number[r] += 1
        state = buffer.add(state, stack(pieces))
        found = {n: p for r in range(RINGS) for n, p in table_of(state, r).items()}
        assert found.keys() <= known.keys()
        known = {n: known[n] for n in found}
        if pending is not None:
            batch, errors = pending
            values = {}
            for i, row in enumerate(errors.reshape(tapes, -1)):
                at = 0
                for n, length in read(tape_of(batch, i)):
                    if np.isfinite(row[at : at + length]).all():
                        twice += n in values
                        values.setdefault(n, []).append(slow_priority(row[at : at + length]))
                    else:
                        broken += 1
                    at += length + 1
            for n, several in values.items():
                gone += n not in known
                if n in known:
                    known[n] = max(several)
                    largest = max(largest, *several)
            state = buffer.update_priorities(state, batch.drawn, jnp.asarray(errors))
            found = {n: p for r in range(RINGS) for n, p in table_of(state, r).items()}
            np.testing.assert_allclose(float(state.largest), largest, rtol=1e-5)
        np.testing.assert_allclose([found[n] for n in known], list(known.values()), rtol=1e-5)
        batch = buffer.sample(state, jax.random.key(turn)) if known else None
        errors = rng.normal(size=tapes * buffer.slots).astype(np.float32) * rng.choice([0.1, 1.0, 3.0])
        errors[rng.random(errors.size) < 0.02] = rng.choice([np.nan, np.inf])
        pending = (batch, errors) if batch is not None else None
    assert largest > 1.5 and twice > 5 and gone > 5 and broken > 5


def prioritised(config=PRIORITY):
    """Nine episodes over four rings, with priorities from 1 to 60 times the smallest."""
    buffer, state, live = uneven(config)
    errors = {number: 0.02 * 1.8**i for i, (number, _) in enumerate(live)}
    for seed in range(80):
        batch = buffer.sample(state, jax.random.key(seed))
        ((number, length),) = read(batch.tape)
        td = np.zeros(buffer.slots, np.float32)
        td[:length] = errors[number] * np.where(np.arange(length) == length - 1, -1, 0.5)
        state = buffer.update_priorities(state, batch.drawn, jnp.asarray(td))
    want = {n: slow_priority([errors[n] * (1 if t == m - 1 else 0.5) for t in range(m)], config) for n, m in live}
    got = {n: p for r in range(4) for n, p in table_of(state, r).items()}
    np.testing.assert_allclose([got[n] for n, _ in live], [want[n] for n, _ in live], rtol=1e-5)
    return buffer, state, live, np.asarray([want[n] for n, _ in live])


def test_episodes_are_drawn_in_proportion_to_their_priorities_and_weighted_by_the_formula():
    buffer, state, live, priorities = prioritised()
    share = priorities / priorities.sum()
    for beta in (None, 1.0):
        batch = jax.vmap(lambda key, b=beta: buffer.sample(state, key, b))(jax.random.split(jax.random.key(2), 9_000))
        drawn, weight = first_of(batch), np.asarray(batch.weight)
        counts = [int(np.sum(drawn == number)) for number, _ in live]
        assert sum(counts) == 9_000
        assert chi_square(counts, share) < 26.1
        importance = (1 / (len(live) * share)) ** (PRIORITY.correction if beta is None else beta)
        for (number, length), w in zip(live, importance / importance.max(), strict=True):
            mine = weight[drawn == number]
            np.testing.assert_allclose(mine[:, :length], w, rtol=1e-5)
            assert not mine[:, length:].any()
        assert 0 < weight[weight > 0].min() < 0.3 and weight.max() <= 1


def test_with_full_correction_the_expected_gradient_is_that_of_uniform_draws():
    """The expectation is exact: a batch of one transition holds one episode, and the factor is constant."""
    buffer, state, live, priorities = prioritised()
    theta = jnp.asarray([0.7, -0.2])

    @jax.jit
    def gradient(theta, sample):
        tape, weight = sample.flat

        def loss(theta):
            x = jnp.stack((tape.observation[:, 0] / 1000, jnp.sin(tape.observation[:, 0])))
            return weighted_mean((theta @ x - tape.reward) ** 2, weight, 1)

        return jax.grad(loss)(theta)

    found, seed = {}, 0
    while len(found) < len(live):
        batch = buffer.sample(state, jax.random.key(seed), 1.0)
        found[read(batch.tape)[0][0]] = batch
        seed += 1
    share = priorities / priorities.sum()
    plain = [b._replace(weight=b.tape.transition.astype(jnp.float32)) for b in (found[n] for n, _ in live)]
    uniform = sum(np.asarray(gradient(theta, b)) for b in plain) / len(live)
    expected = sum(p * np.asarray(gradient(theta, found[n])) for p, (n, _) in zip(share, live, strict=True))
    np.testing.assert_allclose(expected, len(live) * share.min() * uniform, rtol=1e-4)


def test_a_new_episode_enters_with_the_largest_priority_so_far():
    buffer, state, _, priorities = prioritised()
    batch = buffer.sample(state, jax.random.key(0))
    np.testing.assert_allclose(float(state.largest), priorities.max(), rtol=1e-6)
    assert priorities.max() > 1.5
    state = buffer.update_priorities(state, batch.drawn, jnp.full(buffer.slots, 50.0))
    largest = slow_priority([50.0])
    np.testing.assert_allclose(float(state.largest), largest, rtol=1e-6)
    # Smaller errors do not lower it later.
    state = buffer.update_priorities(state, batch.drawn, jnp.zeros(buffer.slots))
    state = buffer.add(state, stack([piece(make(900 + r, 4)) for r in range(4)]))
    for r in range(4):
        np.testing.assert_allclose(table_of(state, r)[900 + r], largest, rtol=1e-6)


def test_all_episodes_that_one_call_completes_enter_with_a_priority():
    """As many as fit: the end of an episode from an earlier call, then episodes of the shortest length."""
    buffer, stream = jitted(1, priority=PRIORITY), concatenate([make(n, SHORTEST) for n in range(3)])
    state = buffer.init(make(0, 1))
    for begun, end in ((0, SHORTEST), (SHORTEST, SHORTEST + WIDTH)):
        slots = jax.tree.map(lambda leaf, a=begun, b=end: leaf[a:b], stream)
        state = buffer.add(state, stack([piece(slots)]))
    assert table_of(state, 0) == {0: 1.0, 1: 1.0, 2: 1.0}


def test_draws_among_many_follow_their_shares_and_never_fall_on_nothing():
    rng = np.random.default_rng(1)
    leaves = np.zeros(40_000, np.float32)
    where = np.sort(rng.choice(leaves.size, 30, replace=False))
    leaves[where] = rng.uniform(0.1, 3.0, 30) * 10.0 ** -rng.integers(0, 3, 30)
    draw = jax.jit(lambda leaves, key: draw_proportionally(sums(leaves), key, 50_000))
    counts = np.bincount(draw(leaves, jax.random.key(0)), minlength=leaves.size)
    assert not counts[leaves == 0].any()
    # Chi-square with 29 degrees of freedom: 58.3 is exceeded once in a thousand.
    assert chi_square(counts[where], leaves[where] / leaves.sum(dtype=np.float64)) < 58.3
    # With many equal leaves, float32 rounding must not affect the frequencies. 58.3 for 30 blocks, as above.
    counts = np.bincount(draw(np.ones_like(leaves), jax.random.key(1)), minlength=leaves.size)
    blocks = np.add.reduceat(counts, np.linspace(0, leaves.size, 31).astype(int)[:-1])
    assert chi_square(blocks, np.diff(np.linspace(0, leaves.size, 31).astype(int)) / leaves.size) < 58.3
    assert len(counts) == leaves.size


def test_the_same_episode_drawn_twice_takes_the_larger_of_its_values():
    buffer = jitted(1, priority=PRIORITY)
    state = fill(buffer, [[4]])
    batch = buffer.sample(state, jax.random.key(0))
    assert read(batch.tape) == [(0, 4)] * 3
    td = np.zeros(buffer.slots, np.float32)
    td[:14] = [1, 1, 1, 1, 9, 1, 2, 3, 4, 9, 1, 1, 2, 2]
    state = buffer.update_priorities(state, batch.drawn, jnp.asarray(td))
    # The errors 9 are in final slots, which hold no transition.
    np.testing.assert_allclose(table_of(state, 0)[0], slow_priority([1, 2, 3, 4]), rtol=1e-6)


@pytest.mark.parametrize("priority", [None, PRIORITY])
def test_an_empty_buffer_gives_weight_to_nothing_and_takes_no_priorities(priority):
    buffer = jitted(priority=priority)
    state = buffer.init(make(0, 1))
    batch = buffer.sample(state, jax.random.key(0))
    assert np.isfinite(batch.weight).all() and not batch.weight.any() and batch.tape.padding.all()
    after = buffer.update_priorities(state, batch.drawn, jnp.ones(buffer.slots))
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("priority", [None, PRIORITY])
def test_no_ring_is_copied_inside_a_loop(priority):
    """The training loop needs less memory, besides the donated rings, than one column of them takes."""
    buffer = ring_buffer(4, 200_000, 100, 9, min_length=9, priority=priority)

    def turn(i, state):
        t = i * WIDTH + jnp.arange(WIDTH)
        age = jnp.broadcast_to((t % 10)[None], (4, WIDTH))
        shown, never = age.astype(jnp.float32), jnp.zeros((4, WIDTH), bool)
        pieces = Tape(shown[..., None], age == 0, age, shown, never, age == 8, age < 9)
        state = buffer.add(state, pieces)
        batch = buffer.sample(state, jax.random.key(i))
        tape, weight = batch.flat
        return buffer.update_priorities(state, batch.drawn, weight * (tape.reward + tape.observation[:, 0]))

    state = jax.eval_shape(buffer.init, make(0, 1))
    loop = jax.jit(lambda state: lax.fori_loop(0, 1_000, turn, state), donate_argnums=0)
    used = loop.lower(state).compile().memory_analysis()
    # A column of flags takes 800 kB, the sums of the priorities 320 kB.
    assert used.temp_size_in_bytes < 700_000


def test_what_does_not_fit_is_refused_in_one_line():
    for changes, message in [
        ({"rings": 0}, "ring_buffer: needs at least 1 ring, got 0"),
        ({"batch_size": 0}, "ring_buffer: batch_size must be at least 1, got 0"),
        ({"min_length": 8}, "ring_buffer: needs 1 <= min_length <= max_length, got 8 and 7"),
        ({"max_length": 24}, "ring_buffer: an episode of 24 transitions takes 25 slots, the ring has only 24: raise"),
        ({"tapes": 0}, "ring_buffer: 0 tapes cannot share a batch of 10 transitions evenly"),
        ({"tapes": 3}, "ring_buffer: 3 tapes cannot share a batch of 10 transitions evenly"),
    ]:
        with pytest.raises(ValueError, match="^" + message) as caught:
            ring_buffer(**{"rings": RINGS} | SIZES | changes)
        assert "\n" not in str(caught.value)
    buffer, keeps = ring_buffer(RINGS, **SIZES), ring_buffer(RINGS, **SIZES, priority=PRIORITY)
    state = jax.eval_shape(buffer.init, make(0, 1))
    with pytest.raises(ValueError, match="needs a piece for each of 3 rings, got 2"):
        buffer.add(state, stack([nothing(), nothing()]))
    with pytest.raises(ValueError, match="a tape of 25 slots does not fit into a ring of 24: raise capacity"):
        buffer.add(state, stack([nothing(25)] * 3))
    with pytest.raises(ValueError, match=rf"a batch has {buffer.slots} slots, got TD errors of shape \(3,\)"):
        buffer.update_priorities(state, None, jnp.zeros(3))
    with pytest.raises(ValueError, match="not drawn by priority"):
        keeps.update_priorities(state, None, jnp.zeros(buffer.slots))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"exponent": -0.1}, "exponent must be finite and not negative, got -0.1"),
        ({"correction": 1.5}, "correction must be between 0 and 1, got 1.5"),
        ({"mix": -1.0}, "mix must be between 0 and 1, got -1.0"),
        ({"floor": 0.0}, "floor must be positive and finite, got 0.0"),
    ],
)
def test_priority_settings_out_of_range_are_refused_by_name(field, message):
    with pytest.raises(ValueError, match=message):
        PriorityConfig(**field)
