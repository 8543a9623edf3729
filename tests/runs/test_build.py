"""The parts of a run: networks of a size that is asked for."""

from pathlib import Path
from typing import Any

import jax
import pytest

from memoroids.agents.sizing import count_parameters
from memoroids.runs.build import DeviceParts, as_built, build
from memoroids.runs.run_directory import load_config, seed_dir
from memoroids.runs.settings import TrainConfig
from memoroids.runs.train import train


def shapes(parts: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.shape, parts.network)


@pytest.mark.parametrize("env", ["RepeatFirstEasy", "device:RepeatFirstEasy"])
def test_the_settings_of_a_run_say_the_width_and_sizes_that_were_chosen(env: str):
    asked = TrainConfig.of(env=env, memory="ffm", parameters=60_000, num_envs=1, eval_episodes=1)
    parts = build(asked)
    said = as_built(asked, parts)
    parts.close()
    assert said.network.parameters is None and said.network.width != asked.network.width
    assert abs(count_parameters(parts.network) - 60_000) <= 600
    again = build(said)
    again.close()
    assert shapes(again) == shapes(parts)


@pytest.mark.parametrize(
    ("env", "algorithm", "joined"),
    [
        ("device:RepeatFirstEasy", "ppo", True),
        ("device:RepeatFirstEasy", "pqn", False),
        ("device:RepeatFirstEasy", "dqn", False),
        ("device:MineSweeperEasy", "pqn", True),
        ("device:PositionOnlyPendulumEasy", "ppo", False),
        ("RepeatFirstEasy", "ppo", True),
        ("RepeatFirstEasy", "dqn", False),
    ],
)
def test_ppo_is_told_discrete_actions_and_others_what_the_environment_asks_for(env: str, algorithm: str, joined: bool):
    values: dict[str, Any] = {"algorithm": algorithm, "width": 8, "num_envs": 8, "random_episodes": 0}
    for said, expected in ((None, joined), (True, True), (False, False)):
        parts = build(TrainConfig.of(env=env, previous_action=said, **values))
        seen = parts.view if isinstance(parts, DeviceParts) else parts.envs.example
        assert seen.previous_action is expected
        parts.close()


def test_a_run_of_several_seeds_writes_what_was_chosen_for_all_of_them(tmp_path: Path):
    small: dict[str, Any] = {
        "steps": 40,
        "random_episodes": 0,
        "num_envs": 1,
        "eval_episodes": 1,
        "final_episodes": 1,
        "rollout": 8,
    }
    asked = TrainConfig.of(
        env="device:RepeatFirstEasy", algorithm="pqn", memory="mlp", parameters=3_950, seeds=2, minibatches=1, **small
    )
    train(asked, tmp_path / "run")
    written = [load_config(path).network for path in (tmp_path / "run", seed_dir(tmp_path / "run", 1))]
    assert written[0] == written[1] and written[0].parameters is None and written[0].width < 64


def test_a_size_that_cannot_be_had_is_refused_in_one_line():
    asked = TrainConfig.of(env="device:RepeatFirstEasy", memory="gru", parameters=300, eval_episodes=1)
    with pytest.raises(
        ValueError,
        match=r"^cannot build a network of 300 parameters with memory 'gru': no width comes within 1%[^\n]*$",
    ):
        build(asked)
