"""Runs in a vector environment, whose environments are stepped in one call."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interruptions import interrupted
from memoroids.runs.run_directory import load_config
from memoroids.runs.settings import TrainConfig
from memoroids.runs.train import train


def config(algorithm: str, **changes: Any) -> TrainConfig:
    replay = {"random_episodes": 4, "batch_size": 50} if algorithm == "dqn" else {"rollout": 32}
    settings: dict[str, Any] = {
        "env": "CartPole-v1",
        "vector": True,
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


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_a_run_learns_in_a_vector_environment_and_begins_its_episodes_again_when_it_goes_on(
    algorithm: str, tmp_path: Path
):
    outcome = train(config(algorithm), tmp_path / "whole")
    assert outcome.final is not None and len(outcome.final.returns) == 5
    assert np.all(outcome.final.returns == outcome.final.lengths) and np.all(outcome.final.returns <= 500)
    assert not (tmp_path / "whole" / "warnings.txt").exists()

    run = tmp_path / "stopped"
    assert interrupted(config(algorithm), run, after=12).final is None
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
            config("ppo", **changes)
