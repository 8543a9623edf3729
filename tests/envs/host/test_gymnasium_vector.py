"""Vector environments behind the collectors: no step lost or taken twice, faults, and what is refused."""

import itertools
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from memoroids.acting.host_collection import Collector
from memoroids.acting.host_rollouts import RolloutCollector
from memoroids.envs import EnvironmentFault, HostEnv
from memoroids.envs.host.gymnasium_vector import VectorEnvs

HERE = __name__


class Counter(gym.Env):
    """Shows which environment it is, which of its episodes this is, and the step; pays the action it was given.

    Episode k of environment i takes 2 + (i + k) % 3 steps; every other is truncated. `spoil`: (environment, episode,
    step, fault) of one fault, "raise" or "nan".
    """

    observation_space = spaces.Box(-1, 1e4, (3,), np.float32)
    action_space = spaces.Discrete(5)

    def __init__(self, index: int, spoil: tuple[Any, ...] | None = None):
        self.index, self.episode, self.spoil = index, -1, spoil

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.episode, self.t = 0 if seed is not None else self.episode + 1, 0
        return self._look(), {}

    def step(self, action: int):
        assert self.t < self.length
        self.t += 1
        ended, even = self.t == self.length, self.episode % 2 == 0
        if self.spoil and self.spoil[:3] == (self.index, self.episode, self.t):
            fault, self.spoil = self.spoil[3], None
            if fault == "raise":
                raise RuntimeError("the simulator is gone")
            return self._look() * np.nan, 0.0, False, False, {}
        return self._look(), float(action), ended and even, ended and not even, {}

    @property
    def length(self) -> int:
        return 2 + (self.index + self.episode) % 3

    def _look(self) -> np.ndarray:
        return np.asarray([self.index, self.episode, self.t], np.float32)


def counters(num_envs: int, mode: str = "NextStep", spoil: tuple[Any, ...] | None = None, more: int = 0) -> Any:
    made = [lambda i=i: Counter(i, spoil) for i in range(num_envs + more)]
    return SyncVectorEnv(made, autoreset_mode=AutoresetMode(mode), copy=False)


def single(num_envs: int) -> gym.Env:
    return Counter(num_envs)


def envs(number: int = 3, name: str = "counters", **options: Any) -> VectorEnvs:
    return VectorEnvs(f"{HERE}:{name}", options, number, time_limit=5.0)


class Policy:
    """Acts by the step of each episode: (step + 1) % 5."""

    def __call__(self, observation: np.ndarray, begin: np.ndarray, number: np.ndarray, step: np.ndarray) -> np.ndarray:
        np.testing.assert_array_equal(begin, step == 0)
        return ((step + 1) % 5).astype(np.int32)

    def memory(self) -> Any:
        return ()

    def restore(self, memory: Any, number: np.ndarray, step: np.ndarray) -> None: ...


def check_episode(rows: np.ndarray, rewards: np.ndarray, terminated: bool) -> tuple[int, int]:
    """Checks all observations of an episode and its rewards; returns which environment's and which episode it was."""
    index, episode = (int(each) for each in rows[0, :2])
    length = 2 + (index + episode) % 3
    np.testing.assert_array_equal(rows, [[index, episode, t] for t in range(length + 1)])
    np.testing.assert_array_equal(rewards, np.arange(1, length + 1))
    assert terminated == (episode % 2 == 0)
    return index, episode


def test_rollouts_hold_every_step_of_every_episode_and_nothing_else():
    collector = RolloutCollector(envs(), Policy(), seed_of=lambda number: 7)
    tapes = [collector.collect(8).tape for _ in range(3)]
    for row in range(3):
        # The slots that follow one another; the last of a rollout repeats the first of the next.
        joined = {
            name: np.concatenate([getattr(tape, name)[row, :-1] for tape in tapes])
            for name in ("observation", "begin", "reward", "terminated", "truncated", "transition")
        }
        begins = np.flatnonzero(joined["begin"])
        assert begins[0] == 0
        for count, (start, stop) in enumerate(itertools.pairwise(begins)):
            slots = slice(start, stop)
            assert joined["transition"][slots].tolist() == [True] * (stop - start - 1) + [False]
            last = stop - 2
            assert joined["terminated"][last] != joined["truncated"][last]
            found = check_episode(
                joined["observation"][slots], joined["reward"][start : stop - 1], joined["terminated"][last]
            )
            assert found == (row, count)
        assert len(begins) >= 4
    for before, after in itertools.pairwise(tapes):
        np.testing.assert_array_equal(
            np.where(before.begin[:, -1:], 0, before.observation[:, -1]),
            np.where(before.begin[:, -1:], 0, after.observation[:, 0]),
        )


def test_episodes_are_whole_and_none_is_left_out():
    found = []
    for episode in Collector(envs(), Policy(), lambda number: 7, 0, 11):
        tape = episode.tape
        found.append(check_episode(tape.observation, tape.reward[:-1], bool(tape.terminated[-2])))
    assert sorted(found) == sorted({*found}) and len(found) == 11
    for index in range(3):
        assert sorted(k for i, k in found if i == index) == list(range(sum(i == index for i, _ in found)))


def test_a_new_collection_begins_with_the_seed():
    collected, shared = [], envs()
    for _ in range(2):
        collected.append([e.tape.observation for e in Collector(shared, Policy(), lambda number: 7, 0, 4)])
    for a, b in zip(*collected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["episodes", "rollouts"])
@pytest.mark.parametrize(("fault", "lost"), [("raise", 3), ("nan", 1)])
def test_a_fault_costs_the_episodes_it_spoiled_and_is_counted_once(kind: str, fault: str, lost: int):
    faults = []
    shared = envs(spoil=(1, 1, 2, fault))
    ended = lambda found: faults.append(str(found)) if found else None  # noqa: E731
    if kind == "episodes":
        found = [
            check_episode(e.tape.observation, e.tape.reward[:-1], bool(e.tape.terminated[-2]))
            for e in Collector(shared, Policy(), lambda number: 7, 0, 20, ended=ended)
        ]
        assert len(found) == 20
        assert (1, 1) not in found[: 20 if fault == "nan" else 6]
    else:
        collector = RolloutCollector(shared, Policy(), lambda number: 7, ended=ended)
        tapes = [collector.collect(9).tape for _ in range(3)]
        for tape in tapes:
            # Of what is left, every transition leads from one step to the next of one episode.
            at = np.argwhere(tape.transition)
            for row, slot in at:
                now, after = tape.observation[row, slot], tape.observation[row, slot + 1]
                np.testing.assert_array_equal(after - now, [0, 0, 1])
        assert all(np.any(tape.transition[row]) for row in range(3) for tape in tapes[1:])
    (message,) = faults
    assert ("the simulator is gone" if fault == "raise" else "non-finite") in message
    assert message.count(",") + 1 >= lost and message.startswith("episodes " if lost > 1 else "episode ")


def test_an_environment_that_hangs_is_given_up_within_the_limit():
    class Slow(SyncVectorEnv):
        def step(self, actions: Any) -> Any:
            time.sleep(30)

    slow = VectorEnvs(f"{HERE}:counters", {}, 2, time_limit=0.2)
    slow._envs = Slow([lambda i=i: Counter(i) for i in range(2)])
    slow.reset(0, 1)
    assert "did not answer within 0.2 s" in str(slow.step({0: 1})[0])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (f"{HERE}:counters", {"mode": "SameStep"}, "AutoresetMode.NEXT_STEP"),
        (f"{HERE}:counters", {"mode": "Disabled"}, "AutoresetMode.NEXT_STEP"),
        (f"{HERE}:counters", {"more": 1}, "4 environments instead of 3"),
        (f"{HERE}:single", {}, "of type Counter, not gymnasium.vector.VectorEnv"),
        ("Pendulum-v1", {}, "no vectorised form of its own"),
    ],
)
def test_what_cannot_be_stepped_is_refused_in_one_line(name: str, options: dict[str, Any], said: str):
    with pytest.raises(ValueError) as error:
        VectorEnvs(name, options, 3, time_limit=None)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_vector_environment_in_place_of_a_single_one_is_named():
    with pytest.raises(ValueError, match=r"not gymnasium\.Env \(--vector steps one\)"):
        HostEnv(f"{HERE}:counters", options={"num_envs": 2})


def test_gymnasiums_own_cartpole_is_that_of_a_loop_over_it():
    own = gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")
    shown, _ = own.reset(seed=3)
    shared = VectorEnvs("CartPole-v1", {}, 2, time_limit=None)
    assert shared.example.max_length == 500
    np.testing.assert_array_equal([shared.reset(i, 3) for i in range(2)], shown)
    for action in (1, 0, 1, 1):
        shown, *_ = own.step(np.asarray([action, 1 - action]))
        results = shared.step({0: action, 1: 1 - action})
        for row, result in zip(shown, results.values(), strict=True):
            assert not isinstance(result, EnvironmentFault)
            np.testing.assert_array_equal(result.observation, row)


def test_atari_shows_one_frame_at_a_time_and_its_own_scores():
    pytest.importorskip("ale_py")
    games = VectorEnvs("ALE/Asteroids-v5", {}, 2, time_limit=None)
    assert games.example.layout == (84, 84, 1)
    first = [games.reset(i, 0) for i in range(2)]
    assert first[0].shape == (84, 84, 1) and first[0].dtype == np.uint8
    rng, rewards = np.random.default_rng(0), []
    for _ in range(200):
        results = games.step({i: int(rng.integers(14)) for i in range(2) if games._phase[i].name == "PLAYING"})
        rewards += [result.reward for result in results.values() if not isinstance(result, EnvironmentFault)]
    assert max(rewards) > 1
    games.close()
