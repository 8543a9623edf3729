"""The return from which an environment counts as solved is what the environment says, if it says anything."""

from typing import Any

import gymnasium as gym
import pytest

from memoroids.envs import popgym_ids, reward_threshold
from memoroids.envs.device import make_device


@pytest.mark.parametrize(
    ("name", "threshold"), [("CartPole-v1", 475), ("FrozenLake-v1", 0.7), ("Acrobot-v1", -100), ("Pendulum-v1", None)]
)
def test_a_host_environment_has_the_threshold_of_its_spec(name: str, threshold: float | None):
    assert reward_threshold(name, gym.make(name)) == threshold


@pytest.mark.parametrize("task", ["RepeatPreviousEasy", "RepeatFirstHard", "VelocityOnlyCartpoleMedium"])
def test_the_tasks_that_memory_solves_have_one_on_host_and_device(task: str):
    assert f"popgym-{task}-v0" in popgym_ids()
    assert reward_threshold(f"popgym-{task}-v0", gym.make(f"popgym-{task}-v0")) == 0.95
    assert reward_threshold(f"device:{task}", make_device(task)) == 0.95


@pytest.mark.parametrize("task", ["MineSweeperEasy", "MultiarmedBanditHard", "PositionOnlyPendulumEasy"])
def test_tasks_whose_best_return_is_not_known_have_none(task: str):
    assert reward_threshold(f"popgym-{task}-v0", gym.make(f"popgym-{task}-v0")) is None
    assert reward_threshold(f"device:{task}", make_device(task)) is None


@pytest.mark.parametrize(
    ("said", "threshold"), [(12, 12.0), (None, None), ("high", None), (float("nan"), None), (float("inf"), None)]
)
def test_an_environment_of_ones_own_may_have_one(said: Any, threshold: float | None):
    class Own:
        reward_threshold = said

    assert reward_threshold("device:own:Own", Own()) == threshold
    assert reward_threshold("own:Own-v0", object()) is None
