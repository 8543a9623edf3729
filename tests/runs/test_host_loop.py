"""Host runs in a vector environment, and with collection that goes on during updates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kills
from interruptions import interrupted
from memoroids.acting.host_rollouts import RolloutCollector
from memoroids.runs.run_directory import load_config
from memoroids.runs.settings import TrainConfig
from memoroids.runs.train import train


def config(algorithm: str, **changes: Any) -> TrainConfig:
    replay = {"random_episodes": 4, "batch_size": 50} if algorithm == "dqn" else {"rollout": 32, "minibatches": 4}
    settings: dict[str, Any] = {
        "env": "CartPole-v1",
        "algorithm": algorithm,
        "memory": "mlp",
        "width": 16,
        "num_envs": 4,
        "steps": 600,
        "eval_every": 12,
        "eval_episodes": 3,
        "final_episodes": 5,
    }
    return TrainConfig.of(**settings | replay | changes)


@pytest.mark.parametrize("algorithm", [pytest.param("ppo", marks=pytest.mark.slow), "dqn"])
def test_a_run_learns_in_a_vector_environment_and_begins_its_episodes_again_when_it_goes_on(
    algorithm: str, tmp_path: Path
):
    outcome = train(config(algorithm, vector=True), tmp_path / "whole")
    assert outcome.final is not None and len(outcome.final.returns) == 5
    assert np.all(outcome.final.returns == outcome.final.lengths) and np.all(outcome.final.returns <= 500)
    assert not (tmp_path / "whole" / "warnings.txt").exists()

    run = tmp_path / "stopped"
    assert interrupted(config(algorithm, vector=True), run, after=12).final is None
    gone_on = train(load_config(run), run, resume=True)
    assert gone_on.final is not None and gone_on.rows[-1]["env_steps"] >= 600
    (line,) = (run / "warnings.txt").read_text().splitlines()
    assert "whose episodes cannot be replayed" in line and "start again" in line


def test_settings_of_single_environments_are_refused():
    for changes, said in (
        ({"processes": 2}, "processes 2 is for single environments"),
        ({"max_episode_steps": 9}, "max_episode_steps is for single environments"),
        ({"env": "device:RepeatPreviousEasy"}, "vector True is for host environments"),
    ):
        with pytest.raises(ValueError, match=said):
            config("ppo", vector=True, **changes)


@pytest.mark.parametrize("algorithm", ["ppo", *(pytest.param(n, marks=pytest.mark.slow) for n in ("pqn", "dqn"))])
@pytest.mark.slow
def test_an_overlapped_run_that_is_stopped_goes_on_as_if_it_had_not_been(algorithm: str, tmp_path: Path):
    settings = config(algorithm, overlap=True)
    train(settings, tmp_path / "whole")
    assert interrupted(settings, tmp_path / "parts", after=14).final is None
    train(settings, tmp_path / "parts", resume=True)
    whole, parts = kills.state(tmp_path / "whole"), kills.state(tmp_path / "parts")
    assert [name for name in whole if whole[name] != parts.get(name)] == []


def actions(monkeypatch: pytest.MonkeyPatch, settings: TrainConfig, run_dir: Path) -> list[np.ndarray]:
    """The actions of a run's rollouts."""
    found, collect = [], RolloutCollector.collect

    def noted(self: RolloutCollector, slots: int) -> Any:
        collected = collect(self, slots)
        found.append(collected.tape.action)
        return collected

    with monkeypatch.context() as patched:
        patched.setattr(RolloutCollector, "collect", noted)
        train(settings, run_dir)
    return found


def test_with_overlap_each_rollout_is_collected_with_the_parameters_of_before_the_latest_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # An update that changes nothing leaves the policy of the beginning in place.
    still = actions(monkeypatch, config("ppo", learning_rate=1e-30), tmp_path / "still")
    fast = {"learning_rate": 0.3, "eval_every": 10_000}
    for overlap, alike in ((False, 1), (True, 2)):
        moved = actions(monkeypatch, config("ppo", overlap=overlap, **fast), tmp_path / str(overlap))
        equal = [np.array_equal(a, b) for a, b in zip(still, moved, strict=False)]
        assert equal[: alike + 1] == [True] * alike + [False]
