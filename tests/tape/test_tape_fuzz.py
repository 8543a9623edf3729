"""Tapes with any mix of episodes, ends and padding, their segments and returns, compared with loops over episodes."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoroids.returns import discounted_return, gae, lambda_return
from memoroids.tape import Tape, concatenate, continues, empty, episode, pad, slots_needed
from memoroids.tape.segments import split

FIELDS = ("observation", "begin", "action", "reward", "terminated", "truncated", "transition")
SLOTS = 32
# How an episode ends: by termination, by truncation, by both at once, or not before the end of the tape.
TERMINATED, TRUNCATED, BOTH, CUT = "terminated", "truncated", "both", "cut"


class Lived(NamedTuple):
    """An episode as it happened: T + 1 observations, T actions and rewards, and how it ended."""

    observation: list[Any]
    action: list[Any]
    reward: list[float]
    ending: str

    @property
    def length(self) -> int:
        return len(self.reward)

    def tape(self) -> Tape:
        terminated, truncated = self.ending in (TERMINATED, BOTH), self.ending in (TRUNCATED, BOTH)
        return episode(np.stack(self.observation), np.stack(self.action), self.reward, terminated, truncated)


def live(length: int, ending: str, seed: int, *, image: bool = False) -> Lived:
    """An episode without zeros, so that any zero on a tape comes from the tape."""
    rng = np.random.default_rng([seed, length])
    if image:
        observation = list(rng.integers(1, 256, (length + 1, 2, 3, 1)).astype(np.uint8))
        action = list(rng.uniform(0.5, 1, (length, 2)).astype(np.float32))
    else:
        observation = list(rng.uniform(1, 2, (length + 1, 2)).astype(np.float32))
        action = list(rng.integers(1, 7, length).astype(np.int32))
    return Lived(observation, action, [float(np.float32(r)) for r in rng.uniform(0.5, 1.5, length)], ending)


ENDINGS = st.sampled_from([TERMINATED, TRUNCATED, BOTH])


@st.composite
def lives(draw: Any, most: int = SLOTS, image: bool = False) -> list[Lived]:
    """Whole episodes that together fit into `most` slots."""
    out, room = [], most
    for length in draw(st.lists(st.one_of(st.integers(1, 4), st.integers(1, most - 1)), min_size=1, max_size=10)):
        if length + 1 <= room:
            out.append(live(length, draw(ENDINGS), len(out), image=image))
            room -= length + 1
    return out or [live(1, draw(ENDINGS), 0, image=image)]


class Slot(NamedTuple):
    """One slot of a tape with its episode, its step within the episode, and its kind."""

    fields: dict[str, Any]
    episode: int
    step: int
    kind: str


def slots_of(episodes: list[Lived], slots: int) -> list[Slot]:
    """The tape slot by slot, as in docs/time.md."""
    nothing = {
        "observation": np.zeros_like(episodes[0].observation[0]),
        "action": np.zeros_like(episodes[0].action[0]),
        "reward": np.float32(0),
        "terminated": False,
        "truncated": False,
    }
    out = []
    for number, each in enumerate(episodes):
        for t in range(each.length + 1):
            fields = nothing | {"observation": each.observation[t], "begin": t == 0, "transition": t < each.length}
            if t < each.length:
                fields |= {"action": each.action[t], "reward": np.float32(each.reward[t])}
            if t == each.length - 1:
                fields |= {
                    "terminated": each.ending in (TERMINATED, BOTH),
                    "truncated": each.ending == TRUNCATED,
                }
            out.append(Slot(fields, number, t, "transition" if t < each.length else "final"))
    for number in range(len(episodes), len(episodes) + slots - len(out)):
        out.append(Slot(nothing | {"begin": True, "transition": False}, number, 0, "padding"))
    return out


def assert_fields(tape: Tape, slots: list[Slot]) -> None:
    for name in FIELDS:
        want = np.stack([np.asarray(slot.fields[name]) for slot in slots])
        got = np.asarray(getattr(tape, name))
        assert got.dtype == want.dtype and got.shape == want.shape, name
        np.testing.assert_array_equal(got, want, err_msg=name)


def laid(episodes: list[Lived], slots: int) -> Tape:
    return pad(concatenate([each.tape() for each in episodes]), slots)


@pytest.mark.parametrize("image", [False, True], ids=["vectors", "images"])
@settings(max_examples=60)
@given(st.data())
def test_a_tape_is_its_episodes_slot_by_slot(image: bool, data: st.DataObject):
    episodes = data.draw(lives(image=image))
    want = slots_of(episodes, SLOTS)
    tape = laid(episodes, SLOTS)
    assert_fields(tape, want)
    used = sum(each.length + 1 for each in episodes)
    # The grouping of concatenations does not matter, and an empty tape is padding.
    middle = data.draw(st.integers(1, len(episodes)))
    halves = [episodes[:middle], episodes[middle:]]
    again = concatenate([concatenate([each.tape() for each in half]) for half in halves if half])
    assert_fields(again, want[:used])
    if used < SLOTS:
        assert_fields(empty(SLOTS - used, tape), want[used:])


@jax.jit
def derived(tape: Tape) -> dict[str, Any]:
    return {
        "padding": tape.padding,
        "final": tape.final,
        "steps": tape.steps(),
        "episodes": tape.episodes(),
        "next": tape.next_slot({"observation": tape.observation, "reward": tape.reward, "begin": tape.begin}),
        "continues": continues(tape.terminated, tape.truncated, tape.transition),
    }


@settings(max_examples=80)
@given(lives(), st.integers(0, SLOTS - 1))
def test_what_follows_from_boundaries_is_what_a_walk_along_the_episodes_finds(episodes: list[Lived], shift: int):
    slots = slots_of(episodes, SLOTS)
    # A tape that starts within an episode: as many padding slots follow at the end.
    ahead = [slot._replace(episode=slot.episode - slots[shift].episode) for slot in slots[shift:]]
    number = ahead[-1].episode
    blank = slots_of(episodes, SLOTS + 1)[-1]
    ahead += [Slot(blank.fields, number + 1 + i, 0, "padding") for i in range(shift)]
    tape = Tape(**{name: jnp.asarray(np.stack([slot.fields[name] for slot in ahead])) for name in FIELDS})
    got = derived(tape)
    np.testing.assert_array_equal(got["padding"], [slot.kind == "padding" for slot in ahead])
    np.testing.assert_array_equal(got["final"], [slot.kind == "final" for slot in ahead])
    # Slots before the first begin flag belong to no episode of this tape.
    known = next((i for i, slot in enumerate(ahead) if slot.fields["begin"]), SLOTS)
    first = ahead[known].episode if known < SLOTS else 0
    want = [-1] * known + [slot.episode - first for slot in ahead[known:]]
    np.testing.assert_array_equal(got["episodes"], want)
    np.testing.assert_array_equal(got["steps"][known:], [slot.step for slot in ahead[known:]])
    for name, values in got["next"].items():
        following = [slot.fields[name] for slot in ahead[1:]] + [np.zeros_like(ahead[0].fields[name])]
        np.testing.assert_array_equal(values, np.stack(following))
    lengths = [each.length for each in episodes[slots[shift].episode :]]
    goes_on = [slot.kind == "transition" and slot.step < lengths[slot.episode] - 1 for slot in ahead]
    np.testing.assert_array_equal(got["continues"], goes_on)
    assert tape.slots == SLOTS


@settings(max_examples=80)
@given(
    st.integers(1, 12), ENDINGS, st.sampled_from(["observation", "reward"]), st.data(),
    st.sampled_from([math.nan, math.inf, -math.inf]),
)  # fmt: skip
def test_the_first_value_that_is_not_finite_is_named_by_its_step(
    length: int, ending: str, field: str, data: st.DataObject, value: float
):
    each = live(length, ending, 0)
    steps = data.draw(st.lists(st.integers(0, length - (field == "reward")), min_size=1, max_size=3))
    for step in steps:
        if field == "reward":
            each.reward[step] = value
        else:
            each.observation[step][data.draw(st.integers(0, 1))] = value
    with pytest.raises(ValueError, match=f"^the {field} at step {min(steps)} is not finite"):
        each.tape()


@settings(max_examples=100)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 25))
def test_every_batch_of_whole_episodes_fits_into_the_slots_it_is_given(lengths: list[int], batch_size: int):
    transitions = slots = 0
    for length in lengths:
        if transitions >= batch_size:
            break
        transitions, slots = transitions + length, slots + length + 1
    assert slots <= slots_needed(batch_size, max(lengths), min(lengths))


# --- segments


@pytest.mark.parametrize("image", [False, True], ids=["vectors", "images"])
@settings(max_examples=100)
@given(st.integers(1, 40), ENDINGS, st.integers(1, 45), st.integers(0, 9))
def test_segments_are_their_episode_step_by_step(image: bool, length: int, ending: str, most: int, seed: int):
    each = live(length, ending, seed, image=image)
    kept = each.tape()
    rows = split(kept, most)
    number = 0
    for begin in range(0, length, most):
        end = min(begin + most, length)
        ends = end == length
        part = Lived(each.observation[begin : end + 1], each.action[begin:end], each.reward[begin:end],
                     ending if ends else CUT)  # fmt: skip
        want = slots_of([part], most + 1)
        want[0] = want[0]._replace(fields=want[0].fields | {"begin": begin == 0})
        assert_fields(jax.tree.map(lambda leaf, row=number: leaf[row], rows), want)
        number += 1
    assert rows.begin.shape == (number, most + 1)
    # Every transition and every end occurs once, and the original episode is unchanged.
    assert rows.transition.sum() == length
    assert rows.terminated.sum() == (ending != TRUNCATED) and rows.truncated.sum() == (ending == TRUNCATED)
    assert_fields(kept, slots_of([each], length + 1))


# --- returns


class Rows(NamedTuple):
    """Arrays (SLOTS,) as arguments of the return functions, and the rows of each episode in order."""

    reward: np.ndarray
    value: np.ndarray
    value_tp1: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    transition: np.ndarray
    episodes: list[tuple[list[int], str]]


@st.composite
def rows(draw: Any, gaps: bool) -> Rows:
    """Episodes, or parts of them, row by row; with `gaps`, rows without a transition follow each."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    reward, value, value_tp1 = (rng.normal(size=SLOTS).astype(np.float32) + np.float32(2) for _ in range(3))
    terminated, truncated, transition = (np.zeros(SLOTS, bool) for _ in range(3))
    episodes, at = [], draw(st.integers(0, 3)) if gaps else 0
    while at < SLOTS:
        length = min(draw(st.one_of(st.integers(1, 4), st.integers(1, SLOTS))), SLOTS - at)
        # Without gaps, only an end flag separates two episodes.
        ending = draw(st.sampled_from([TERMINATED, TRUNCATED, BOTH, *([CUT] if gaps or at + length == SLOTS else [])]))
        mine = list(range(at, at + length))
        transition[mine] = True
        terminated[mine[-1]], truncated[mine[-1]] = ending in (TERMINATED, BOTH), ending in (TRUNCATED, BOTH)
        episodes.append((mine, ending))
        at += length + (draw(st.integers(1, 4)) if gaps else 0)
    return Rows(reward, value, value_tp1, terminated, truncated, transition, episodes)


def slow_returns(given_: Rows, discount: float, lambda_: float) -> dict[str, np.ndarray]:
    """All three returns, by a backward loop over each episode in float64."""
    out = {name: np.zeros(SLOTS) for name in ("discounted", "lambda", "gae")}
    for mine, ending in given_.episodes:
        discounted = mixed = advantage = 0.0
        for i in reversed(mine):
            reward, value, value_tp1 = (float(x[i]) for x in (given_.reward, given_.value, given_.value_tp1))
            if i == mine[-1]:
                beyond = 0.0 if ending in (TERMINATED, BOTH) else value_tp1
                discounted, mixed = reward + discount * beyond, reward + discount * beyond
                advantage = reward + discount * beyond - value
            else:
                discounted = reward + discount * discounted
                mixed = reward + discount * ((1 - lambda_) * value_tp1 + lambda_ * mixed)
                advantage = reward + discount * value_tp1 - value + discount * lambda_ * advantage
            out["discounted"][i], out["lambda"][i], out["gae"][i] = discounted, mixed, advantage
    return out


@functools.partial(jax.jit, static_argnames="masked")
def fast_returns(
    given_: dict[str, jax.Array], bootstrap: jax.Array, discount: jax.Array, lambda_: jax.Array, masked: bool
) -> dict[str, jax.Array]:
    reward, value, value_tp1 = given_["reward"], given_["value"], given_["value_tp1"]
    ends = given_["terminated"], given_["truncated"]
    transition = given_["transition"] if masked else None
    return {
        "discounted": discounted_return(reward, *ends, discount, bootstrap, transition=transition),
        "lambda": lambda_return(reward, value_tp1, *ends, discount, lambda_, transition=transition),
        "gae": gae(reward, value, value_tp1, *ends, discount, lambda_, transition=transition),
    }


SHARES = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 0.99]), st.floats(0, 1, width=32))


@pytest.mark.parametrize("masked", [False, True], ids=["rows", "gaps"])
@settings(max_examples=100)
@given(st.data(), SHARES, SHARES)
def test_returns_are_what_a_walk_back_through_each_episode_gives(
    masked: bool, data: st.DataObject, discount: float, lambda_: float
):
    given_ = data.draw(rows(masked))
    want = slow_returns(given_, discount, lambda_)
    arrays = {name: getattr(given_, name).copy() for name in given_._fields if name != "episodes"}
    # Inputs that are not used may be NaN: rows without a transition, values after a termination, and for the discounted
    # return the bootstrap values of all rows that continue.
    for name in ("reward", "value", "value_tp1"):
        arrays[name][~given_.transition] = np.nan
    arrays["value_tp1"][given_.terminated] = np.nan
    bootstrap = np.full(SLOTS, np.nan, np.float32)
    for mine, ending in given_.episodes:
        if ending in (TRUNCATED, CUT):
            bootstrap[mine[-1]] = given_.value_tp1[mine[-1]]
    got = fast_returns(arrays, bootstrap, jnp.float32(discount), jnp.float32(lambda_), masked)
    for name, values in want.items():
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], values, rtol=2e-5, atol=2e-5, err_msg=name)


@settings(max_examples=60)
@given(lives(), SHARES, SHARES)
def test_returns_of_a_tape_are_those_of_its_episodes(episodes: list[Lived], discount: float, lambda_: float):
    tape = laid(episodes, SLOTS)
    value = np.where(tape.padding, np.nan, tape.observation[:, 0])
    value_tp1 = np.asarray(Tape.next_slot(tape, jnp.asarray(value)))
    given_, at = [], 0
    for each in episodes:
        given_.append((list(range(at, at + each.length)), each.ending))
        at += each.length + 1
    fields = {name: np.asarray(getattr(tape, name)) for name in ("reward", "terminated", "truncated", "transition")}
    all_rows = Rows(value=value, value_tp1=value_tp1, episodes=given_, **fields)
    want = slow_returns(all_rows, discount, lambda_)
    arrays = {name: getattr(all_rows, name) for name in all_rows._fields if name != "episodes"}
    got = fast_returns(arrays, value_tp1, jnp.float32(discount), jnp.float32(lambda_), True)
    for name, values in want.items():
        np.testing.assert_allclose(got[name], values, rtol=2e-5, atol=2e-5, err_msg=name)
