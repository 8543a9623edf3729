"""Names of environments: what a package registers, and what a user passes in Python."""

import importlib.util
import sys
import threading
import types
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memoroids.envs import HostEnv, popgym_ids, resolve_id
from memoroids.envs.device.tasks import make_device
from memoroids.envs.names import environment_name
from memoroids.runs.settings import TrainConfig
from toy_env import Lengths


class Counting(gym.Env):
    """Its observation is the step, from `first` on."""

    observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, first: int = 0):
        self.first = first

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.t = self.first
        return np.full(1, self.t, np.float32), {}

    def step(self, action: Any):
        self.t += 1
        return np.full(1, self.t, np.float32), 0.0, False, False, {}


def counting(first: int = 0) -> Counting:
    return Counting(first)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module of a user's that can be imported."""
    made = types.ModuleType("own_environments")
    made.__dict__.update(make=counting, wrong=lambda: 3, number=3)
    monkeypatch.setitem(sys.modules, "own_environments", made)
    return made


def test_a_factory_is_called_with_the_options_and_its_episodes_are_limited(module: types.ModuleType):
    env = HostEnv("own_environments:make", options={"first": 4}, max_episode_steps=3)
    assert env.max_length == 3 and env.reset(0) == 4
    assert [env.step(0)[2:] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    assert HostEnv("own_environments:make").max_length is None


@pytest.mark.parametrize(
    ("attribute", "says"),
    [
        ("wrong", "ValueError: it is of type int, not gymnasium.Env"),
        ("number", "own_environments has no callable 'number'"),
        ("absent", "own_environments has no callable 'absent', and registers no such id"),
        ("Absent-v0", "Environment `Absent` doesn't exist"),
    ],
)
def test_what_makes_no_environment_is_named(attribute: str, says: str, module: types.ModuleType):
    with pytest.raises(ValueError) as error:
        HostEnv(f"own_environments:{attribute}")
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "given", [Counting, counting, lambda: Counting(), Counting(7)], ids=["class", "function", "lambda", "environment"]
)
def test_what_is_passed_in_python_makes_environments_of_its_own(given: Any):
    config = TrainConfig.of(env=given, memory="mlp")
    first, second = (HostEnv(config.env.id) for _ in range(2))
    start = 7 if isinstance(given, Counting) else 0
    assert first.reset(0) == second.reset(0) == start
    assert (first.step(0)[0], second.reset(1)) == (start + 1, start)


def test_an_environment_that_cannot_be_copied_is_answered_with_what_to_pass():
    env = Counting()
    env.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"Counting cannot be copied \(TypeError: .*\): pass a function that makes it"):
        TrainConfig.of(env=env)


@pytest.mark.parametrize("given", [Lengths(max_length=3), Lengths], ids=["environment", "class"])
def test_device_environments_are_passed_in_python_too(given: Any):
    config = TrainConfig.of(env=given)
    assert config.env.on_device
    made = make_device(config.env.device_name)
    assert isinstance(made, Lengths) and made.max_length == (5 if given is Lengths else 3)


def test_what_is_neither_a_name_nor_an_environment_is_refused():
    with pytest.raises(ValueError, match="env must be a name, an environment or a function that makes one, got 3"):
        environment_name(3)


@pytest.mark.parametrize(
    ("name", "installed", "says"),
    [
        ("MiniGrid-MemoryS7-v0", True, "is not known before its package is imported: use --env minigrid:MiniGrid-Mem"),
        ("MiniGrid-MemoryS7-v0", False, "needs the package minigrid: pip install minigrid, and then use --env minigr"),
        ("own_package/Task-v1", True, "use --env own_package:own_package/Task-v1"),
        ("own-task-v1", True, "use --env own:own-task-v1"),
        ("own-task-v1", False, "unknown environment"),
        ("LabyrinthEscapeEasy", True, r"needs the extra navigation: pip install 'memoroids\[navigation\]'"),
        ("popgym-LabyrinthExploreHard-v0", True, "needs the extra navigation"),
    ],
)
def test_a_package_that_an_id_needs_is_named(name: str, installed: bool, says: str, monkeypatch: pytest.MonkeyPatch):
    # POPGym itself looks for packages when it is imported, and registers its labyrinths if it finds mazelib.
    for id_ in popgym_ids():
        if "Labyrinth" in id_:
            monkeypatch.delitem(gym.registry, id_)
    monkeypatch.delitem(gym.registry, name, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: object() if installed else None)
    with pytest.raises(ValueError, match=says) as error:
        resolve_id(name)
    assert "\n" not in str(error.value)
