"""Planted mistakes, each in a small run that says so itself, and what its directory shows afterwards."""

import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memoroids.agents.ppo import PPOConfig
from memoroids.runs.check_up import examined, measured, read_record, seeds_of
from memoroids.runs.settings import TrainConfig
from memoroids.runs.train import train


class Planted(gym.Env):
    """Eight to twelve steps of noise that pay for its sign, with a mistake."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, scale: float = 1.0, pays: float = 1.0, seconds: float = 0.0, bound: float = np.inf):
        self.observation_space = gym.spaces.Box(-bound, bound, (3,), np.float32)
        self.scale, self.pays, self.seconds = scale, pays, seconds

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.t, self.length = 0, int(self.np_random.integers(8, 13))
        return self._look(), {}

    def step(self, action: int):
        time.sleep(self.seconds)
        reward = self.pays * float(action == (self.noise[0] > 0))
        self.t += 1
        return self._look(), reward, self.t == self.length, False, {}

    def _look(self) -> np.ndarray:
        self.noise = self.np_random.normal(size=3).astype(np.float32)
        return (1 + self.noise * self.scale if self.scale < 1e3 else self.noise * self.scale).astype(np.float32)


gym.register("test-check-up/Planted-v0", entry_point=lambda **options: Planted(**options))
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "constant observation": ({"env_options": {"scale": 0.0}}, "observations never change"),
    "no reward": ({"env_options": {"pays": 0.0}}, "rewards never vary"),
    "a limit of one step": ({"max_episode_steps": 1}, "episodes of one step"),
    "a million times too large": ({"env_options": {"scale": 1e6}}, "observations far from unit scale"),
    "bounds that do not hold": ({"env_options": {"bound": 0.5}}, "observations beyond their bounds"),
    "sleeps": ({"env_options": {"seconds": 0.006}}, "slow environment"),
}


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "env": "test-check-up/Planted-v0",
        "algorithm": "ppo",
        "memory": "mlp",
        "width": 16,
        "random_episodes": 0,
        "train_episodes": 8,
        "num_envs": 4,
        "eval_every": 8,
        "eval_episodes": 4,
        "final_episodes": 2,
        "agent": PPOConfig(epochs=1, minibatches=2),
    }
    return TrainConfig.of(**settings | changes)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.one_in(3)
def test_a_planted_mistake_is_named_by_the_run_itself_once(
    mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    changes, name = MISTAKES[mistake]
    train(config(**changes), tmp_path / "run")
    (line,) = (tmp_path / "run" / "warnings.txt").read_text().splitlines()
    assert line.startswith(f"episode 0: {name}: ")
    assert capsys.readouterr().err == f"memoroids: {line.removeprefix('episode 0: ')}\n"
    assert name in [finding.name for finding in examined(tmp_path / "run")]
    assert list(read_record(tmp_path / "run").rows) and dict(measured(read_record(tmp_path / "run")))["random actions"]


def test_a_run_without_a_mistake_says_nothing_and_shows_its_figures(tmp_path: Path):
    train(config(), tmp_path / "run")
    assert not (tmp_path / "run" / "warnings.txt").exists() and examined(tmp_path / "run") == []
    record = read_record(tmp_path / "run")
    assert record.share == 1 and record.final is not None and record.baseline is not None
    shown = dict(measured(record))
    assert shown["observations"] == "3 elements, of which 3 changed within an episode"
    assert shown["rewards"] == "0 to 1" and "0 were skipped" in shown["updates"]
    assert {"entropy", "kl", "clipped", "explained variance", "policy grad", "value grad"} <= shown.keys()


def test_what_is_not_there_is_not_shown(tmp_path: Path):
    train(config(), tmp_path / "run")
    (tmp_path / "run" / "baseline.json").unlink()
    (tmp_path / "run" / "summary.json").unlink()
    shown = dict(measured(read_record(tmp_path / "run")))
    assert "updates" in shown and not {"random actions", "final evaluation"} & shown.keys()
    (tmp_path / "run" / "metrics.csv").unlink()
    with pytest.raises(ValueError, match="measured nothing yet"):
        read_record(tmp_path / "run")
    assert examined(tmp_path / "run") == []
    assert examined(tmp_path / "none") == []


def test_of_several_seeds_those_that_have_begun_are_shown(tmp_path: Path):
    settings = config(seeds=2, seed=3, env_options={"pays": 0.0})
    train(settings, tmp_path / "run")
    assert seeds_of(tmp_path / "run") == [tmp_path / "run" / "seed3", tmp_path / "run" / "seed4"]
    for path in seeds_of(tmp_path / "run"):
        assert [finding.name for finding in examined(path)] == ["rewards never vary"]
    (tmp_path / "run" / "seed4").rename(tmp_path / "elsewhere")
    assert seeds_of(tmp_path / "run") == [tmp_path / "run" / "seed3"]
    assert seeds_of(tmp_path / "elsewhere") == [tmp_path / "elsewhere"]
