"""An exported agent acts as the agent itself does, without this package, or is not written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import pytest

from memoroids.cli.main import main
from memoroids.deploy import loader
from memoroids.deploy.export import compare, export, write
from memoroids.deploy.pure_step import PureStep
from memoroids.memory import REGISTRY
from memoroids.runs.build import build_acting
from memoroids.runs.settings import TrainConfig
from memoroids.runs.trained_agent import TrainedAgent

BOX = gym.spaces.Box(-1, 1, (3,), np.float32)
CAMERA = gym.spaces.Box(0, 255, (36, 40), np.uint8)
SPACES: dict[str, tuple[gym.Space, gym.Space]] = {
    "discrete": (BOX, gym.spaces.Discrete(3, start=2)),
    "continuous": (BOX, gym.spaces.Box(-2, 3, (2,), np.float32)),
    "dict": (gym.spaces.Dict({"camera": CAMERA, "deeper": gym.spaces.Tuple((gym.spaces.Discrete(3), BOX))}), BOX),
    "image": (gym.spaces.Box(0, 255, (3, 36, 36), np.uint8), gym.spaces.Discrete(4)),
    "symbols": (gym.spaces.MultiDiscrete([3, 2]), gym.spaces.MultiDiscrete([2, 3])),
    "grid": (
        gym.spaces.Dict({"camera": CAMERA, "map": gym.spaces.Box(0, 255, (3, 4), np.uint8)}),
        gym.spaces.Discrete(3),
    ),
    "bits": (gym.spaces.MultiBinary(4), gym.spaces.MultiBinary(2)),
    "many parts": (BOX, gym.spaces.MultiDiscrete([20, 20, 20])),
}
JOINED = {"previous_action": True, "previous_reward": True, "step_periods": (5.0, 11.0)}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dict": ("dict", {"algorithm": "ppo"} | JOINED),
    "image": ("image", {}),
    "symbols": ("symbols", {"algorithm": "ppo"} | JOINED),
    "grid": ("grid", {"algorithm": "ppo"}),
    "bits": ("bits", {"algorithm": "pqn", "normalise": False}),
    "many parts": ("many parts", {"previous_action": True}),
}


class Sampled(gym.Env):
    """Episodes of three steps with any spaces."""

    def __init__(self, spaces: str):
        self.observation_space, self.action_space = SPACES[spaces]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.left = 3
        return self.observation_space.sample(), {}

    def step(self, action: Any):
        self.left -= 1
        return self.observation_space.sample(), 1.0, self.left == 0, False, {}


gym.register("test-export/Sampled-v0", entry_point=Sampled)


def compared(folder: Path, spaces: str, episodes: int = 4, **settings: Any) -> float:
    """The largest difference over some episodes of an exported agent with its initial parameters."""
    config = TrainConfig.of(
        **{"width": 8, "memory": "gru"} | settings, env="test-export/Sampled-v0", env_options={"spaces": spaces}
    )
    parts = build_acting(config)
    params = parts.agent.init(parts.network).params
    pure = PureStep(parts, params)
    folder.mkdir()
    write(folder, config, pure, best=False)
    difference, steps, _ = compare(loader.Agent(folder), TrainedAgent(parts, params), pure, episodes)
    assert steps >= episodes
    return difference


@pytest.mark.parametrize("memory", REGISTRY)
@pytest.mark.one_in(3)
def test_every_memory_acts_as_the_agent_itself(memory, tmp_path, monkeypatch):
    monkeypatch.setattr("memoroids.deploy.export._stablehlo", lambda *_: b"")  # takes as long as all the rest
    assert compared(tmp_path / "agent", "continuous", algorithm="ppo", memory=memory, previous_action=True) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("memory", REGISTRY)
def test_every_memory_takes_the_same_discrete_actions(memory, tmp_path):
    assert compared(tmp_path / "agent", "discrete", memory=memory, **JOINED) < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_observations_and_actions_of_every_kind_are_translated_as_the_agent_translates_them(case, tmp_path):
    spaces, settings = CASES[case]
    assert compared(tmp_path / "agent", spaces, **settings) < 1e-4


@pytest.fixture
def run(finished, tmp_path) -> Path:
    settings = TrainConfig.of(
        env="test-export/Sampled-v0",
        env_options={"spaces": "discrete"},
        algorithm="ppo",
        memory="lru",
        memory_sizes={"state_size": 4},
        width=8,
        num_envs=2,
        rollout=8,
        minibatches=1,
        epochs=1,
        previous_reward=True,
        train_episodes=8,
        eval_every=8,
        eval_episodes=2,
        final_episodes=2,
    )
    return finished(settings, tmp_path / "run")


ACT = """
import sys

sys.modules["jax"] = sys.modules["memoroids"] = sys.modules["gymnasium"] = None
import numpy as np
from agent import Agent

agent = Agent()
rng = np.random.default_rng(0)
for episode in range(2):
    agent.reset()
    for step in range(5):
        print(agent.act(rng.standard_normal(3).astype(np.float32), float(step)))
try:
    agent.act(np.zeros(4))
except ValueError as error:
    print(error)
"""


def test_a_run_is_exported_and_acts_without_this_package(run, tmp_path, capsys):
    main(["export", str(run), "--output", str(tmp_path / "agent"), "--episodes", "3"])
    said = capsys.readouterr().out
    assert "compared over 3 episodes" in said and "the same actions, largest difference" in said
    done = subprocess.run([sys.executable, "-c", ACT], cwd=tmp_path / "agent", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *actions, error = done.stdout.splitlines()
    from memoroids import load

    agent, rng = load(run).agent(stochastic=False), np.random.default_rng(0)
    want = []
    for _ in range(2):
        agent.reset()
        want += [str(agent.act(rng.standard_normal(3).astype(np.float32), float(step))) for step in range(5)]
    assert actions == want
    assert error == "observation: needs finite numbers of shape [3], got shape [4]"
    with pytest.raises(SystemExit):
        main(["export", str(run), "--output", str(tmp_path / "agent")])
    assert "agent exists: choose another --output" in capsys.readouterr().err


def test_the_program_for_jax_steps_as_the_model_does(run, tmp_path):
    folder = export(run, tmp_path / "agent", episodes=2).folder
    exported = loader.Agent(folder)
    program = jax.export.deserialize(bytearray((folder / "agent.stablehlo").read_bytes()))
    from memoroids.runs.load import load_acting

    _, parts, params = load_acting(run)
    state = jax.tree.leaves(PureStep(parts, params).initial)
    rng = np.random.default_rng(0)
    for step in range(5):
        observation = rng.standard_normal(3).astype(np.float32)
        action, state = program.call(state, (observation,), np.float32(step))
        assert int(action) == exported.act(observation, step)


def test_a_changed_file_is_refused_in_one_line(run, tmp_path):
    folder = export(run, tmp_path / "agent", episodes=1).folder
    for name in json.loads((folder / "agent.json").read_text())["files"]:
        damaged = shutil.copytree(folder, tmp_path / name)
        content = bytearray((damaged / name).read_bytes())
        content[len(content) // 2] ^= 1
        (damaged / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not the file that was exported: export the agent again"):
            loader.Agent(damaged)


def test_an_agent_that_would_act_otherwise_is_not_written(run, tmp_path, monkeypatch):
    real = loader.Agent.reset

    def wrong(self):
        real(self)
        self.state = {name: np.asarray(value + 1) for name, value in self.state.items()}

    monkeypatch.setattr(loader.Agent, "reset", wrong)
    with pytest.raises(ValueError, match=r"the exported agent (differs by .* from the agent|takes action .*) at step"):
        export(run, tmp_path / "agent")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_missing_package_is_named_with_its_extra(run, tmp_path, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else found(name))
    with pytest.raises(ValueError, match=r"exporting needs onnx: pip install 'memoroids\[onnx\]'"):
        export(run, tmp_path / "agent")
    program = 'import sys; sys.modules["onnx"] = sys.modules["onnxruntime"] = None; import memoroids.deploy.export'
    subprocess.run([sys.executable, "-c", program], check=True)
