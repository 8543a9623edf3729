"""Every replay buffer under any order of calls, against a plain list of the episodes added."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered import FIELDS

from memoroids.replay import PriorityConfig, ring_buffer, segment_buffer, tape_buffer
from memoroids.replay import host_buffers as host
from memoroids.replay.host_buffers import HostSegmentBuffer, HostTapeBuffer
from memoroids.tape import Tape

Slots = dict[str, np.ndarray]
KEYS = 128
QUICKLY = {"xla_backend_optimization_level": 0}
# Values that survive copying, but not a sum or a comparison with zero.
ODD = np.asarray([-0.0, 1e-30, -3.5, 0.1, 1e30], np.float32)
BLANK = {
    "observation": np.zeros((1, 2), np.float32),
    "begin": np.asarray([True]),
    "action": np.zeros(1, np.int32),
    "reward": np.zeros(1, np.float32),
    "terminated": np.asarray([False]),
    "truncated": np.asarray([False]),
    "transition": np.asarray([False]),
}


def slots_of(number: int, length: int, ending: str) -> Slots:
    """An episode of T actions slot by slot, as in docs/time.md; the first feature encodes its number and the step."""
    rng = np.random.default_rng([number, length])
    out = {name: np.repeat(blank, length + 1, axis=0) for name, blank in BLANK.items()}
    for t in range(length + 1):
        out["observation"][t] = 100 * number + t, rng.choice(ODD)
        out["begin"][t] = t == 0
        if t < length:
            out["action"][t] = rng.integers(1, 9)
            out["reward"][t] = rng.choice(ODD)
            out["transition"][t] = True
    out["terminated"][length - 1] = ending == "terminated"
    out["truncated"][length - 1] = ending == "truncated"
    return out


def joined(parts: list[Slots]) -> Slots:
    return {name: np.concatenate([BLANK[name][:0], *(part[name] for part in parts)]) for name in FIELDS}


def cut_out(slots: Slots, begin: int, end: int) -> Slots:
    return {name: values[begin:end] for name, values in slots.items()}


def size(slots: Slots) -> int:
    return len(slots["begin"])


def among_padding(slots: Slots, room: int, where: list[int]) -> Tape:
    """A tape of `room` slots with these slots, in order, at as many positions of `where`, and padding elsewhere."""
    at = sorted(where[: size(slots)])
    leaves = {name: np.repeat(blank, room, axis=0) for name, blank in BLANK.items()}
    for name, values in leaves.items():
        values[at] = slots[name]
    return Tape(**leaves)  # pyright: ignore[reportArgumentType]


def as_slots(tape: Tape) -> Slots:
    return {name: np.asarray(getattr(tape, name)) for name in FIELDS}


def assert_same(got: Slots, want: Slots) -> None:
    for name in FIELDS:
        assert got[name].dtype == want[name].dtype and got[name].shape == want[name].shape, name
        assert got[name].tobytes() == want[name].tobytes(), name


class Ring:
    """The plain list: every episode added, with its slots and the position of the first among all slots written."""

    def __init__(self, capacity: int, shortest: int, longest: int):
        self.capacity, self.shortest, self.longest = capacity, shortest, longest
        self.episodes: list[tuple[int, int, Slots]] = []
        self.written = self.refused = self.added = 0

    def add(self, slots: int, ended: list[tuple[int, Slots, int]]) -> None:
        """A call with this many slots; `ended`: of each episode the number, the slots, and the last one's position."""
        for number, whole, before in ended:
            if self.shortest <= size(whole) - 1 <= self.longest:
                self.episodes.append((number, self.written + before + 1 - size(whole), whole))
            else:
                self.refused += 1
        self.written += slots
        kept = [episode for episode in self.episodes if episode[1] >= self.written - self.capacity]
        self.added += len([episode for episode in kept if episode[0] in {number for number, _, _ in ended}])
        self.episodes = kept

    def live(self) -> dict[int, Slots]:
        return {number: whole for number, _, whole in self.episodes}


ENDINGS = st.sampled_from(["terminated", "truncated"])
LENGTHS = st.one_of(st.integers(1, 9), st.integers(1, 26))
# Runs of the shortest episodes, since one call then evicts the most.
EPISODES = st.one_of(
    st.lists(st.tuples(LENGTHS, ENDINGS), min_size=6, max_size=6),
    st.lists(st.tuples(st.just(1), ENDINGS), min_size=10, max_size=10),
    st.lists(st.tuples(st.just(2), ENDINGS), min_size=10, max_size=10),
)


class Stream:
    """The input of a ring: episodes, cut anywhere, some of them abandoned or without their beginning."""

    def __init__(self, first: int):
        self.number, self.whole, self.taken = first - 1, None, 0
        self.closed = True

    def begin(self, length: int, ending: str) -> None:
        self.number += 1
        self.whole, self.taken = slots_of(self.number, length, ending), 0

    def call(self, kind: str, count: int, episodes: list[tuple[int, str]]) -> tuple[Slots, list[Any]]:
        """The slots of one call, and the episodes that end in it, in the form of `Ring.add`."""
        parts, ended, waiting = [], [], iter(episodes)
        # After an unfinished episode, the tail would be taken for its continuation.
        if kind == "tail" and self.closed:
            self.number += 1
            orphan = slots_of(self.number, *episodes[0])
            return cut_out(orphan, max(1, size(orphan) - count), size(orphan)), []
        if kind == "give up":
            self.whole = None
        while count:
            if self.whole is None:
                following = next(waiting, None)
                if following is None:
                    break
                self.begin(*following)
            assert self.whole is not None
            now = min(count, size(self.whole) - self.taken)
            parts.append(cut_out(self.whole, self.taken, self.taken + now))
            self.closed = False
            count, self.taken = count - now, self.taken + now
            if self.taken == size(self.whole):
                ended.append((self.number, self.whole, sum(map(size, parts)) - 1))
                self.whole, self.closed = None, True
        return joined(parts), ended


def stored(state: Any, r: int | None = None) -> list[Slots]:
    """All live episodes in the table, oldest first, read back from the ring."""
    state = jax.tree.map(np.asarray, state._replace(priority=None, largest=None))
    ring = state if r is None else jax.tree.map(lambda leaf: leaf[r], state)
    slots, table = as_slots(ring.tape), ring.start.shape[0]
    out = []
    for k in range(int(ring.live)):
        entry = (int(ring.first) + k) % table
        at = (int(ring.start[entry]) + np.arange(int(ring.length[entry]) + 1)) % size(slots)
        out.append({name: values[at] for name, values in slots.items()})
    return out


def assert_stored(state: Any, model: Ring, r: int | None = None) -> None:
    found, want = stored(state, r), list(model.live().values())
    assert len(found) == len(want)
    for got, whole in zip(found, want, strict=True):
        assert_same(got, whole)
    counts = [int(np.asarray(leaf).reshape(-1)[r or 0]) for leaf in (state.live, state.added, state.refused)]
    assert counts == [len(want), model.added, model.refused]


def drawn_from(tape: Slots, live: dict[int, Slots], slots: int) -> list[int]:
    """The numbers of the episodes on one tape; asserts that it consists, bit for bit, of live episodes and padding."""
    numbers = [int(first) // 100 for first in tape["observation"][tape["begin"] & tape["transition"], 0]]
    assert set(numbers) <= set(live)
    laid = [live[number] for number in numbers]
    padding = {name: np.repeat(blank, slots - sum(map(size, laid)), axis=0) for name, blank in BLANK.items()}
    assert_same(tape, joined([*laid, padding]))
    return numbers


def assert_batches(batches: Any, live: dict[int, Slots], share: int, slots: int) -> Iterator[int]:
    """Yields the numbers of the episodes drawn; asserts that each tape is whole live episodes up to `share`."""
    tapes = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, slots, *leaf.shape[3:]), batches.tape)
    fields = as_slots(tapes)
    for i in range(len(tapes.begin)):
        numbers = drawn_from({name: values[i] for name, values in fields.items()}, live, slots)
        lengths = [size(live[number]) - 1 for number in numbers]
        assert (sum(lengths) >= share > sum(lengths[:-1])) if live else not lengths
        yield from numbers


@functools.cache
def keys(seed: int) -> jax.Array:
    return jax.random.split(jax.random.key(seed), KEYS)


SEEDS = st.integers(0, 9)
KINDS = st.sampled_from(["more", "more", "more", "give up", "tail"])

CAPACITY, LONGEST, BATCH, WIDTH = 20, 8, 6, 9


@functools.cache
def one_ring() -> tuple[Any, Any]:
    buffer = tape_buffer(CAPACITY, BATCH, LONGEST)
    return buffer, jax.jit(jax.vmap(buffer.sample, in_axes=(None, 0)), compiler_options=QUICKLY)


def assert_draws(sample: Any, state: Any, live: dict[int, Slots], batch: int, slots: int, seed: int) -> None:
    batches = sample(state, keys(seed))
    lifted = jax.tree.map(lambda leaf: leaf[:, None], batches)
    assert set(assert_batches(lifted, live, batch, slots)) == set(live)
    np.testing.assert_array_equal(batches.weight, np.asarray(batches.tape.transition, np.float32))


# A call: its kind, its width, up to that of the ring, the number of slots, their places among padding, the episodes
# that begin, and whether to sample afterwards.
CALL = st.tuples(
    KINDS, st.sampled_from([WIDTH, WIDTH, CAPACITY]), st.integers(0, CAPACITY), st.randoms(use_true_random=False),
    EPISODES, st.sampled_from([False, False, True]),
)  # fmt: skip


@settings(max_examples=50)
@given(st.lists(CALL, min_size=1, max_size=12), SEEDS)
def test_a_tape_buffer_is_a_plain_list_of_episodes(calls, seed):
    buffer, sample = one_ring()
    state = buffer.init(among_padding(joined([]), 1, []))
    stream, model = Stream(0), Ring(CAPACITY, 1, LONGEST)
    for kind, room, count, random, episodes, look in calls:
        slots, ended = stream.call(kind, min(count, room), episodes)
        where = random.sample(range(room), room)
        state = buffer.add(state, among_padding(slots, room, where))
        model.add(size(slots), ended)
        assert_stored(state, model)
        if look:
            assert_draws(sample, state, model.live(), BATCH, buffer.slots, seed)
    assert_draws(sample, state, model.live(), BATCH, buffer.slots, seed)


# --- several rings

RINGS, NARROW, SHORTEST, TAPES = 3, 16, 2, 2
PRIORITY = PriorityConfig(exponent=0.7, correction=0.5, mix=0.8, floor=0.01)


@functools.cache
def rings(priority: PriorityConfig | None) -> tuple[Any, Any]:
    """The buffer with compiled functions, and its `sample` mapped over many keys."""
    buffer = ring_buffer(RINGS, NARROW, TAPES * BATCH, LONGEST, min_length=SHORTEST, tapes=TAPES, priority=priority)
    names = ("add", "sample", "update_priorities")
    many = jax.jit(jax.vmap(buffer.sample, in_axes=(None, 0)), compiler_options=QUICKLY)
    return buffer._replace(**{name: jax.jit(getattr(buffer, name), compiler_options=QUICKLY) for name in names}), many


def stack(tapes: list[Tape]) -> Tape:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *tapes)


def rings_after(calls: Any, buffer: Any, state: Any, streams: list[Stream], models: list[Ring]) -> Any:
    """The state after one call, with a part of its own for each ring."""
    tapes = []
    for (kind, count, random, episodes), stream, model in zip(calls, streams, models, strict=True):
        slots, ended = stream.call(kind, count, episodes)
        tapes.append(among_padding(slots, NARROW, random.sample(range(NARROW), NARROW)))
        model.add(size(slots), ended)
    return buffer.add(state, stack(tapes))


def fresh(buffer: Any) -> tuple[Any, list[Stream], list[Ring]]:
    models = [Ring(NARROW, SHORTEST, LONGEST) for _ in range(RINGS)]
    # Numbers start at 1000 r: codes of number and step below 2^24 are exact in float32.
    return buffer.init(among_padding(joined([]), 1, [])), [Stream(1000 * r) for r in range(RINGS)], models


def all_live(models: list[Ring]) -> dict[int, Slots]:
    return {number: whole for model in models for number, whole in model.live().items()}


PART = st.tuples(KINDS, st.integers(0, NARROW), st.randoms(use_true_random=False), EPISODES)


@settings(max_examples=35)
@given(st.lists(st.tuples(PART, PART, PART), min_size=1, max_size=8), SEEDS)
def test_rings_are_plain_lists_of_episodes_and_all_are_drawn_from(calls, seed):
    buffer, sample = rings(None)
    state, streams, models = fresh(buffer)
    for parts in calls:
        state = rings_after(parts, buffer, state, streams, models)
        for r, model in enumerate(models):
            assert_stored(state, model, r)
    live, batches = all_live(models), sample(state, keys(seed))
    assert set(assert_batches(batches, live, BATCH, buffer.slots)) == set(live)
    np.testing.assert_array_equal(batches.weight, np.asarray(batches.tape.transition, np.float32))


def slow_priority(errors: list[float]) -> float:
    mixed = PRIORITY.mix * max(errors) + (1 - PRIORITY.mix) * sum(errors) / len(errors)
    return (mixed + PRIORITY.floor) ** PRIORITY.exponent


def assert_priorities(state: Any, models: list[Ring], known: dict[int, float]) -> None:
    for r, model in enumerate(models):
        table = state.start.shape[1]
        entries = (int(state.first[r]) + np.arange(int(state.live[r]))) % table
        want = [known[number] for number in model.live()]
        np.testing.assert_allclose(np.asarray(state.priority)[r, entries], want, rtol=1e-5)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(PART, PART, PART, st.sampled_from(["sample", "learn", "late", ""])), min_size=1, max_size=8),
    SEEDS,
)
def test_priorities_follow_the_episodes_of_plain_lists_and_never_those_that_took_their_place(calls, seed):
    buffer, many = rings(PRIORITY)
    state, streams, models = fresh(buffer)
    known: dict[int, float] = {}
    largest, batch, rng = 1.0, None, np.random.default_rng(seed)
    for i, (*parts, then) in enumerate(calls):
        state = rings_after(parts, buffer, state, streams, models)
        live = all_live(models)
        known = {number: known.get(number, largest) for number in live}
        assert_priorities(state, models, known)
        if then == "late" and batch is None:
            continue
        if then in ("sample", "learn"):
            batch = buffer.sample(state, jax.random.key(i))
            weights = np.asarray(batch.weight)
            tapes = as_slots(batch.tape)
            for k in range(TAPES):
                tape = {name: values[k] for name, values in tapes.items()}
                numbers = drawn_from(tape, live, buffer.slots)
                factors = [(min(known.values()) / known[n]) ** PRIORITY.correction for n in numbers]
                want = [f for f, n in zip(factors, numbers, strict=True) for _ in range(size(live[n]))]
                want = np.asarray(want + [0.0] * (buffer.slots - len(want))) * tape["transition"]
                np.testing.assert_allclose(weights[k], want, rtol=1e-5)
        if then in ("learn", "late"):
            assert batch is not None
            errors = rng.normal(size=TAPES * buffer.slots).astype(np.float32)
            # Errors in slots without a transition must be ignored.
            errors[~np.asarray(batch.tape.transition).reshape(-1)] = np.nan
            spoilt = rng.integers(len(errors))
            errors[spoilt] = np.inf
            state = buffer.update_priorities(state, batch.drawn, jnp.asarray(errors))
            found: dict[int, list[float]] = {}
            tapes = as_slots(jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), batch.tape))
            at = 0
            while at < len(errors):
                if not tapes["transition"][at]:
                    at += 1
                    continue
                number, end = int(tapes["observation"][at, 0]) // 100, at
                while tapes["transition"][end]:
                    end += 1
                mine = [abs(float(e)) for e in errors[at:end]]
                if number in live and np.isfinite(mine).all():
                    found.setdefault(number, []).append(slow_priority(mine))
                at = end
            known |= {number: max(values) for number, values in found.items()}
            largest = max([largest, *known.values()])
            assert_priorities(state, models, known)
    live, share = all_live(models), sum(known.values())
    drawn = set(assert_batches(many(state, keys(seed)), live, BATCH, buffer.slots))
    # Only episodes that random draws would miss less than once in a million runs are required.
    likely = {number for number, value in known.items() if (1 - value / share) ** (TAPES * KEYS) < 1e-6}
    assert likely <= drawn <= set(live)


# --- segments

LENGTH, ROWS, SEGMENTS = 3, 7, 5
INITIAL = jnp.zeros(2)


def fragments_of(number: int, length: int, ending: str) -> list[Slots]:
    """The segments of an episode: L transitions each, the observation after them, and padding."""
    whole, out = slots_of(number, length, ending), []
    for begin in range(0, length, LENGTH):
        end = min(begin + LENGTH, length)
        part = {name: values[begin : end + 1].copy() for name, values in whole.items()}
        for name in ("action", "reward", "terminated", "truncated", "transition"):
            part[name][-1] = 0
        padding = {name: np.repeat(blank, LENGTH - (end - begin), axis=0) for name, blank in BLANK.items()}
        out.append(joined([part, padding]))
    return out


def as_rows(fragments: list[Slots]) -> Tape:
    return Tape(**{name: np.stack([part[name] for part in fragments]) for name in FIELDS})  # pyright: ignore[reportArgumentType]


NO_ROW = {name: np.repeat(np.zeros_like(blank), LENGTH + 1, axis=0) for name, blank in BLANK.items()}


def state_of(number: int, k: int) -> np.ndarray:
    return np.asarray([number + 1, k + 1], np.float32)


@functools.cache
def segments_of(state: Any, rows: int = ROWS, segments: int = SEGMENTS) -> tuple[Any, Any]:
    buffer = segment_buffer(rows * LENGTH, segments, LENGTH, INITIAL, state=state)
    return buffer, jax.jit(jax.vmap(buffer.sample, in_axes=(None, 0)), compiler_options=QUICKLY)


def repeated(got: Slots, want: Slots) -> tuple[Slots, Slots]:
    """Rows, and the row that each of them should equal, as many times."""
    return got, {name: np.stack([values] * len(got[name])) for name, values in want.items()}


def assert_segments(ring: Any, sample: Any, model: list[Any], state: str, seed: int) -> None:
    """Compares a ring of segments, and the batches drawn from it, with a list of (number, index, fragment)."""
    rows = ring.tape.begin.shape[0]
    assert int(ring.live) == len(model)
    fields = as_slots(ring.tape)
    for (_, _, want), at in zip(model, (int(ring.head) - len(model) + np.arange(len(model))) % rows, strict=True):
        assert_same({name: values[at] for name, values in fields.items()}, want)
    batch = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), sample(ring, keys(seed)))
    tapes = as_slots(batch.tape)
    if not model:
        assert not batch.weight.any()
        return
    by_code = {int(part["observation"][0, 0]): i for i, (_, _, part) in enumerate(model)}
    drawn = np.asarray([by_code[int(code)] for code in tapes["observation"][:, 0, 0]])
    assert set(drawn.tolist()) == set(range(len(model)))
    for i, (number, k, want) in enumerate(model):
        mine = np.flatnonzero(drawn == i)
        assert_same(*repeated({name: values[mine] for name, values in tapes.items()}, want))
        entering = state_of(number, k) if state == "stored" else np.zeros(2)
        np.testing.assert_array_equal(batch.state[mine], np.broadcast_to(entering, (len(mine), 2)))
        if state == "burn-in":
            previous, present = batch.before
            known = i > 0 and model[i - 1][0] == number
            assert (present[mine] == known).all()
            if known:
                assert_same(
                    *repeated({name: values[mine] for name, values in as_slots(previous).items()}, model[i - 1][2])
                )
    np.testing.assert_array_equal(batch.weight, tapes["transition"].astype(np.float32))


ROW_CALL = st.lists(st.one_of(st.none(), st.tuples(st.integers(1, 12), ENDINGS)), max_size=4)


@pytest.mark.parametrize("state", ["zero", "stored", "burn-in"])
@settings(max_examples=25)
@given(calls=st.lists(ROW_CALL, min_size=1, max_size=8), seed=SEEDS)
def test_a_segment_buffer_is_a_plain_list_of_segments(state, calls, seed):
    buffer, sample = segments_of(state)
    ring, model, number, added = buffer.init(as_rows([NO_ROW])), [], -1, 0
    for call in calls:
        given: list[Any] = []
        for each in call:
            if each is None:
                given.append((-1, 0, NO_ROW))
                continue
            parts = fragments_of(number + 1, *each)
            if len(given) + len(parts) > ROWS:
                break
            number += 1
            given += [(number, k, part) for k, part in enumerate(parts)]
        given = (given + [(-1, 0, NO_ROW)] * ROWS)[:ROWS]
        states = (np.stack([state_of(n, k) for n, k, _ in given]),) if state == "stored" else ()
        ring = buffer.add(ring, as_rows([part for _, _, part in given]), *states)
        new = [each for each in given if each[0] >= 0]
        model, added = (model + new)[-ROWS:], added + len(new)
        assert int(ring.added) == added
        assert_segments(ring, sample, model, state, seed)


# --- the buffers of the host loop


@pytest.fixture
def compiled_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers of equal sizes share their functions, which are pure; otherwise each example would compile them."""
    monkeypatch.setattr(host, "tape_buffer", host_tape_buffer)
    monkeypatch.setattr(host, "segment_buffer", host_segment_buffer)


@functools.cache
def host_tape_buffer(*sizes: Any, **more: Any) -> Any:
    return tape_buffer(*sizes, **more)


@functools.cache
def host_tape_sample(functions: Any) -> Any:
    return jax.jit(jax.vmap(functions.sample, in_axes=(None, 0)), compiler_options=QUICKLY)


def host_segment_buffer(capacity: int, segments: int, length: int, initial: Any, *, state: Any) -> Any:
    del length, initial
    return segments_of(state, capacity // LENGTH, segments)[0]


def whole_tape(number: int, length: int, ending: str) -> Tape:
    slots = slots_of(number, length, ending)
    return among_padding(slots, length + 1, list(range(length + 1)))


# The bound for the longest episodes, a power of two, exceeds it.
HOST_CAPACITY = 15


@pytest.mark.usefixtures("compiled_once_for_all")
@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(2, 11), ENDINGS, st.sampled_from([False, False, True])), min_size=1, max_size=15),
    st.sampled_from([None, 7]),
    SEEDS,
)
def test_a_host_tape_buffer_takes_every_length_and_is_a_plain_list_of_episodes(episodes, declared, seed):
    # Initial bounds, since each pair of bounds is compiled and few others remain.
    buffer = HostTapeBuffer(HOST_CAPACITY, BATCH, declared=declared, bounds=(2, 4))
    model = Ring(HOST_CAPACITY, 1, HOST_CAPACITY)
    for number, (length, ending, again) in enumerate(episodes):
        functions = buffer.functions
        changed = buffer.add(whole_tape(number, length, ending))
        assert changed == (buffer.functions is not functions)
        model.add(length + 1, [(number, slots_of(number, length, ending), length)])
        assert_stored(buffer.state, model)
        if again:
            # Copies, as a checkpoint makes them.
            kept = jax.tree.map(lambda leaf: jnp.asarray(np.array(leaf)), buffer.state)
            bounds, transitions = buffer.bounds, sum(length for length, _, _ in episodes[: number + 1])
            buffer = HostTapeBuffer(HOST_CAPACITY, BATCH, declared=declared, bounds=bounds)
            like = buffer.like(whole_tape(0, 1, "terminated"))
            assert jax.tree.structure(like) == jax.tree.structure(kept)
            buffer.restore(kept, transitions)
    assert buffer.functions is not None
    sample = host_tape_sample(buffer.functions)
    assert_draws(sample, buffer.state, model.live(), BATCH, buffer.functions.slots, seed)


@pytest.mark.usefixtures("compiled_once_for_all")
@settings(max_examples=15)
@given(
    st.lists(st.integers(2, 11), max_size=4),
    st.integers(HOST_CAPACITY, 40),
    st.lists(st.integers(2, 11), min_size=1, max_size=4),
)
def test_a_host_tape_buffer_goes_on_after_an_episode_that_does_not_fit(before, too_long, after):
    buffer, model = HostTapeBuffer(HOST_CAPACITY, BATCH, bounds=(2, 4)), Ring(HOST_CAPACITY, 1, HOST_CAPACITY)
    for number, length in enumerate([*before, too_long, *after]):
        if number == len(before):
            with pytest.raises(ValueError, match=f"an episode of {too_long} transitions"):
                buffer.add(whole_tape(number, too_long, "truncated"))
            continue
        buffer.add(whole_tape(number, length, "truncated"))
        model.add(length + 1, [(number, slots_of(number, length, "truncated"), length)])
    assert_stored(buffer.state, model)


@pytest.mark.usefixtures("compiled_once_for_all")
@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 24), ENDINGS), min_size=1, max_size=12),
    st.sampled_from(["slots", "transitions"]),
    SEEDS,
)
def test_a_host_segment_buffer_is_a_plain_list_of_segments(episodes, count, seed):
    buffer = HostSegmentBuffer(ROWS * LENGTH, 4, LENGTH, INITIAL, count=count)
    model: list[Any] = []
    for number, (length, ending) in enumerate(episodes):
        parts = fragments_of(number, length, ending)
        if len(parts) > ROWS:
            with pytest.raises(ValueError, match=f"an episode of {len(parts)} segments does not fit"):
                buffer.add(whole_tape(number, length, ending))
            continue
        changed = buffer.add(whole_tape(number, length, ending))
        assert not (changed and count == "slots")
        model = (model + [(number, k, part) for k, part in enumerate(parts)])[-ROWS:]
    if buffer.state is None:
        assert not model
        return
    assert buffer.functions is not None and buffer.functions.segments == buffer.bounds[0]
    assert_segments(buffer.state, segments_of("zero", ROWS, buffer.bounds[0])[1], model, "zero", seed)
