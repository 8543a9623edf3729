"""The baseline of random actions: written once, the same in a resumed run, and without effect on training."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memoroids.acting.random_play import Observed
from memoroids.agents.ppo import PPOConfig
from memoroids.envs.spaces import Continuous, Factored
from memoroids.runs import metrics
from memoroids.runs.baseline import LISTED, Seen, _entropy, read_baseline, write_baseline
from memoroids.runs.build import build_host
from memoroids.runs.run_directory import BASELINE, seed_dir
from memoroids.runs.settings import TrainConfig
from memoroids.runs.train import train


class Even(gym.Env):
    """Four steps of noise that pay for the second action."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.t = 0
        return self._look(), {}

    def step(self, action: int):
        self.t += 1
        return self._look(), float(action), False, self.t == 4, {}

    def _look(self) -> np.ndarray:
        return self.np_random.normal(size=2).astype(np.float32)


gym.register("test-baseline/Even-v0", entry_point=Even)


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "env": "test-baseline/Even-v0",
        "algorithm": "ppo",
        "memory": "mlp",
        "width": 8,
        "random_episodes": 0,
        "train_episodes": 6,
        "num_envs": 2,
        "eval_every": 2,
        "eval_episodes": 3,
        "final_episodes": 2,
        "agent": PPOConfig(epochs=1, minibatches=1),
    }
    return TrainConfig.of(**settings | changes)


def untimed(run_dir: Path) -> dict[str, Any]:
    return {name: value for name, value in json.loads((run_dir / BASELINE).read_text()).items() if name != "seconds"}


def test_a_run_writes_its_baseline_and_a_resumed_one_keeps_it(tmp_path: Path):
    train(config(), tmp_path / "whole")
    baseline = read_baseline(tmp_path / "whole")
    assert baseline is not None and len(baseline.returns) == 3 and baseline.lengths == [4, 4, 4]
    assert baseline.truncated == 3 and baseline.steps == 12 and baseline.rewards == [0, 1]
    assert baseline.mean == pytest.approx(np.mean(baseline.returns))
    assert baseline.most_entropy == pytest.approx(math.log(2)) and baseline.seconds is not None
    assert (baseline.seen.elements, baseline.seen.changing, baseline.seen.moving) == (2, 2, 2)

    stops = iter([False, True])
    with pytest.raises(KeyboardInterrupt):
        train(config(), tmp_path / "parts", watch=lambda progress: next(stops) and _interrupt())
    before = (tmp_path / "parts" / BASELINE).read_bytes()
    train(config(), tmp_path / "parts", resume=True)
    assert (tmp_path / "parts" / BASELINE).read_bytes() == before
    assert untimed(tmp_path / "parts") == untimed(tmp_path / "whole")


def _interrupt() -> bool:
    raise KeyboardInterrupt


def test_the_baseline_changes_nothing_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(config(), tmp_path / "with")
    monkeypatch.setattr("memoroids.runs.recorder.Recorder.begin", lambda recorder, play: None)
    train(config(), tmp_path / "without")
    assert not (tmp_path / "without" / BASELINE).exists()
    rows = [
        [{name: value for name, value in row.items() if name not in metrics.TIMES} for row in metrics.read(path)]
        for path in (tmp_path / "with" / "metrics.csv", tmp_path / "without" / "metrics.csv")
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("mapping", ["loop", "vmap"])
@pytest.mark.one_in(2)
def test_every_seed_on_device_has_the_baseline_of_a_run_of_its_own(mapping: str, tmp_path: Path):
    settings = config(env="device:toy_env:Lengths", rollout=6, eval_episodes=4)
    train(settings.replace(seeds=2, mapping=mapping), tmp_path / "both")
    train(settings.replace(seed=1), tmp_path / "alone")
    first, second = (untimed(seed_dir(tmp_path / "both", seed)) for seed in (0, 1))
    assert second == untimed(tmp_path / "alone") and first["returns"] != second["returns"]
    assert len(first["returns"]) == 4 and first["limit"] == 5 and 0 < first["truncated"] + second["truncated"] < 8
    assert (first["seen"]["elements"], first["seen"]["changing"], first["seen"]["moving"]) == (2, 2, 1)


def test_what_is_joined_to_observations_is_left_out(tmp_path: Path):
    settings = config(previous_action=True, previous_reward=True, step_periods=(4.0,), train_episodes=2)
    assert build_host(settings).envs.example.observation_size == 2 + 2 + 1 + 2
    train(settings, tmp_path / "run")
    baseline = read_baseline(tmp_path / "run")
    assert baseline is not None and baseline.seen.elements == 2 == len(baseline.seen.mean)


def test_a_baseline_that_cannot_be_read_is_none(tmp_path: Path):
    assert read_baseline(tmp_path) is None
    train(config(train_episodes=2), tmp_path / "run")
    baseline = read_baseline(tmp_path / "run")
    assert baseline is not None
    write_baseline(tmp_path, dataclasses.replace(baseline, returns=[], rewards=None))
    again = read_baseline(tmp_path)
    assert again is not None and again.rewards is None and math.isnan(again.mean) and math.isnan(again.deviation)
    for text in ("", "[]", "{}", '{"returns": 3}', "[" * 100_000):
        (tmp_path / BASELINE).write_text(text)
        assert read_baseline(tmp_path) is None


def test_many_elements_are_taken_together():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (50, LISTED + 1))
    seen = Seen.of(Observed(x.mean(0), x.std(0), x.min(0), x.max(0), np.ones(LISTED + 1, bool)), 0, 0, [])
    assert seen.elements == seen.changing == seen.moving == LISTED + 1
    np.testing.assert_allclose([seen.mean[0], seen.deviation[0]], [x.mean(), x.std()], rtol=1e-9)
    assert (seen.low, seen.high) == ([x.min()], [x.max()])


def test_the_entropy_of_uniform_actions_is_the_logarithm_of_their_number():
    assert _entropy(6) == (math.log(6), 1)
    assert _entropy(Factored((2, 3))) == (pytest.approx(math.log(6)), 2)
    assert _entropy(Continuous(3, (0.0,) * 3, (1.0,) * 3)) == (None, 3)
