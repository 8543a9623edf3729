"""Random episodes are those of the environment, and their statistics are those of what it showed."""

from typing import Any

import gymnasium as gym
import jax
import numpy as np
import pytest

from memoroids.acting.random_play import FAULTS, device_player, play_on_host, uniform_action
from memoroids.envs import HostEnv
from memoroids.envs.device import DeviceView, make_device
from memoroids.envs.host.vector import LocalEnvs
from memoroids.envs.spaces import Continuous, Factored


class Walk(gym.Env):
    """Its seed, which stays, a large number that counts the steps, and a constant; longer for some seeds."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gym.spaces.Discrete(3)
    broken: range = range(0)
    played: list[tuple[int, list[np.ndarray], list[float]]]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        assert seed is not None
        self.seed, self.t = seed, 0
        Walk.played.append((seed, [], []))
        return self._look(), {}

    def step(self, action: int):
        self.t += 1
        if self.seed in Walk.broken and self.t == 2:
            raise RuntimeError("broken")
        reward = float(action) - 1
        Walk.played[-1][2].append(reward)
        return self._look(), reward, self.seed % 2 == 0 and self.t == 3, self.t == 5, {}

    def _look(self) -> np.ndarray:
        observation = np.asarray([self.seed, 1e6 + self.t, 4], np.float32)
        Walk.played[-1][1].append(observation)
        return observation


gym.register("test-random-play/Walk-v0", entry_point=Walk)


@pytest.fixture
def envs(monkeypatch: pytest.MonkeyPatch) -> LocalEnvs:
    monkeypatch.setattr(Walk, "played", [], raising=False)
    return LocalEnvs([HostEnv("test-random-play/Walk-v0")])


def test_what_is_said_of_host_episodes_is_what_happened(envs: LocalEnvs):
    found = play_on_host(envs, lambda number: 10 + number, 0, 4, 1_000)
    assert [seed for seed, _, _ in Walk.played] == [10, 11, 12, 13]
    np.testing.assert_array_equal(found.returns, [sum(rewards) for _, _, rewards in Walk.played])
    assert found.lengths.tolist() == [3, 5, 3, 5] and found.truncated.tolist() == [False, True, False, True]
    seen = np.concatenate([np.asarray(each, np.float64) for _, each, _ in Walk.played])
    rewards = [reward for _, _, each in Walk.played for reward in each]
    assert found.steps == 16 and found.rewards == (min(rewards), max(rewards)) == (-1, 1)
    mean, deviation, low, high, moved = found.observed
    np.testing.assert_allclose(mean, seen.mean(0), rtol=1e-12)
    np.testing.assert_allclose(deviation, seen.std(0), rtol=1e-9)
    np.testing.assert_array_equal([low, high], [seen.min(0), seen.max(0)])
    assert moved.tolist() == [False, True, False]
    again = play_on_host(envs, lambda number: 10 + number, 0, 4, 1_000)
    np.testing.assert_array_equal(again.returns, found.returns)
    assert not np.array_equal(play_on_host(envs, lambda number: 10 + number, 1, 4, 1_000).returns, found.returns)


def test_the_steps_are_bounded_and_an_episode_that_is_cut_has_no_return(envs: LocalEnvs):
    found = play_on_host(envs, lambda number: number, 0, 9, 7)
    assert found.lengths.tolist() == [3] and found.steps == 7
    assert play_on_host(envs, lambda number: 1, 0, 9, 4).returns.size == 0


def test_an_episode_with_a_fault_is_dropped_and_many_end_the_play(envs: LocalEnvs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Walk, "broken", range(1, 3))
    found = play_on_host(envs, lambda number: number, 0, 3, 1_000)
    assert [seed for seed, _, _ in Walk.played] == [0, 1, 2, 3, 4] and found.lengths.tolist() == [3, 5, 3]
    monkeypatch.setattr(Walk, "broken", range(100))
    Walk.played.clear()
    found = play_on_host(envs, lambda number: number, 0, 3, 1_000)
    assert found.returns.size == 0 and found.observed.mean.shape == (3,) and len(Walk.played) == FAULTS + 1


def test_the_play_can_be_ended(envs: LocalEnvs):
    class Stop(Exception):
        pass

    def check() -> None:
        if len(Walk.played) == 2:
            raise Stop

    with pytest.raises(Stop):
        play_on_host(envs, lambda number: number, 0, 3, 1_000, check)
    assert len(Walk.played) == 2


def test_device_episodes_have_the_lengths_and_rewards_of_their_environment():
    view = DeviceView("device:toy_env:Lengths", make_device("toy_env:Lengths", {}))
    found = device_player(view, 1_000)(np.arange(8, dtype=np.uint32))
    assert found.returns.shape == found.lengths.shape == found.truncated.shape == (8,)
    assert view.min_length <= found.lengths.min() and found.lengths.max() <= view.max_length
    assert found.steps == found.lengths.sum()
    mean, deviation, low, high, moved = found.observed
    assert mean.shape == view.observation_shape and np.isfinite(mean).all() and np.isfinite(deviation).all()
    assert (low <= mean).all() and (mean <= high).all() and not (moved & (low == high)).any()
    cut = device_player(view, 1)(np.arange(8, dtype=np.uint32))
    assert cut.steps == 8


@pytest.mark.parametrize("actions", [5, Factored((2, 7)), Continuous(2, (-1.0, 3.0), (1.0, 5.0))], ids=str)
def test_actions_on_device_are_uniform(actions: Any):
    drawn = np.asarray(jax.vmap(lambda key: uniform_action(actions, key))(jax.random.split(jax.random.key(0), 4_000)))
    if isinstance(actions, Continuous):
        np.testing.assert_allclose(drawn.mean(0), [0, 4], atol=0.1)
        assert drawn.dtype == np.float32 and (drawn >= actions.low).all() and (drawn <= actions.high).all()
        return
    sizes = actions.sizes if isinstance(actions, Factored) else (actions,)
    for part, size in zip(drawn.reshape(4_000, -1).T, sizes, strict=True):
        np.testing.assert_allclose(np.bincount(part) / 4_000, np.full(size, 1 / size), atol=0.04)
