"""Time is counted for what takes it, and what is timed behaves as before."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memoroids.acting.policies import RandomPolicy
from memoroids.envs import EnvironmentFault, HostEnv
from memoroids.envs.host.vector import LocalEnvs
from memoroids.runs.metrics import SPENT
from memoroids.runs.stopwatch import Stopwatch, TimedEnvs, TimedPolicy, timed_update


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Takes(gym.Env):
    """Resets take one second and steps two, on a clock; the third step of an episode raises."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    clock: Clock

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.clock.now += 1
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int):
        self.clock.now += 2
        self.t += 1
        if self.t == 3:
            raise RuntimeError("broken")
        return np.ones(1, np.float32), 0.5, False, False, {}


gym.register("test-stopwatch/Takes-v0", entry_point=Takes)


def test_each_column_gets_its_own_time_and_reading_starts_again(monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    monkeypatch.setattr(Takes, "clock", clock, raising=False)
    watch = Stopwatch(clock)
    plain = LocalEnvs([HostEnv("test-stopwatch/Takes-v0") for _ in range(2)])
    envs = TimedEnvs(plain, watch)
    assert len(envs) == 2 and envs.example is plain.example
    np.testing.assert_array_equal(envs.reset(0, 3), [0])
    assert envs.step({0: 1})[0] == ([1], 0.5, False, False)
    clock.now += 50  # what is done in between is nobody's
    assert watch.read() == {"env_seconds": 3, "policy_seconds": 0, "update_seconds": 0}
    envs.step({0: 0})
    assert isinstance(envs.step({0: 0})[0], EnvironmentFault)

    def update(state: int, share: int) -> int:
        clock.now += 7
        return state + share

    assert timed_update(update, watch)(2, 3) == 5
    assert watch.read() == {"env_seconds": 4, "policy_seconds": 0, "update_seconds": 7}
    assert watch.read() == dict.fromkeys(SPENT, 0)


def test_a_timed_policy_chooses_as_the_policy_does():
    clock = Clock()
    clock_ticks = Stopwatch(lambda: setattr(clock, "now", clock.now + 1) or clock.now)
    plain, timed = RandomPolicy(9, 0), TimedPolicy(RandomPolicy(9, 0), clock_ticks)
    number = np.arange(4, dtype=np.int32)
    begin, step = np.ones(4, bool), np.zeros(4, np.int32)
    observation = np.zeros((4, 1))
    np.testing.assert_array_equal(
        timed(observation, begin, number, step), plain(observation, begin, number, step), strict=True
    )
    assert clock_ticks.read()["policy_seconds"] == 1
    timed.restore(timed.memory(), number, step + 1)
    np.testing.assert_array_equal(
        timed(observation, ~begin, number, step + 1), plain(observation, ~begin, number, step + 1), strict=True
    )
