"""Agents by name: the registry's, and one of the user's own that trains without a change in the package."""

import json
import shlex
from pathlib import Path

import pytest

from memoroids.agents.agent_registry import REGISTRY, resolve_agent
from memoroids.cli.main import main
from memoroids.runs.run_directory import load_config, read_rows, read_summary
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import from_json, to_json, with_typed_agent
from own_agent import A2C, A2CConfig

SMALL = (
    "--algorithm own_agent:A2C --memory ffm --memory-sizes trace_size 4 context_size 2 --width 8 --num-envs 2 "
    "--eval-every 4 --eval-episodes 2 --final-episodes 2 --train-episodes 8 --checkpoint-every 4 --steps None"
)


@pytest.mark.parametrize("name", REGISTRY)
def test_registered_agents_are_found_by_name_and_their_settings_have_defaults(name: str):
    kind = resolve_agent(name)
    assert kind is REGISTRY[name]
    assert isinstance(kind.settings(), kind.settings)


def test_an_agent_of_the_users_own_is_found_by_its_module():
    assert resolve_agent("own_agent:A2C") is A2C


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("sac", "unknown algorithm 'sac'"),
        ("PQM", "did you mean pqn?"),
        ("no_such_module:SAC", "cannot import no_such_module"),
        ("own_agent:NOT_AN_AGENT", "own_agent has no AgentType 'NOT_AN_AGENT'"),
        ("own_agent:SAC", "own_agent has no AgentType 'SAC'"),
    ],
)
def test_a_name_that_stands_for_no_agent_is_refused_in_one_line(name: str, says: str):
    with pytest.raises(ValueError) as error:
        resolve_agent(name)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("env", ["PositionOnlyCartPoleEasy", "device:RepeatPreviousEasy"])
@pytest.mark.one_in(2)
def test_a_fourth_agent_trains_is_resumed_and_evaluated(env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    main(["train", "--env", env, *shlex.split(SMALL), "--trace", "0.8", "--run-dir", str(run)])
    assert "finished" in capsys.readouterr().out
    assert read_rows(run)[-1]["episode"] >= 8 and read_summary(run) is not None
    # What it is set to is known without importing it, and typed once it is.
    config = load_config(run)
    assert config.agent["trace"] == 0.8 and config.own_code == ["own_agent:A2C"]
    agent = with_typed_agent(config).agent
    # Presets leave the settings of a user's agent as its author chose them.
    assert agent == A2CConfig(trace=0.8)
    for command in (["evaluate", str(run), "--episodes", "2"], ["resume", str(run)]):
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 2 and "--trust" in capsys.readouterr().err
        main([*command, "--trust"])
        assert capsys.readouterr().err == ""
    main(["compare", str(run)])  # reads settings only
    assert "own_agent:A2C" in capsys.readouterr().out


@pytest.mark.parametrize("env", ["RepeatPreviousEasy", "device:RepeatPreviousEasy"])
@pytest.mark.one_in(2)
def test_every_gradient_step_of_an_agent_with_replay_is_counted_and_planned(env: str, tmp_path: Path):
    small = SMALL.replace("own_agent:A2C", "own_agent:TWICE") + " --random-episodes 4 --batch-size 60"
    small += " --buffer-size 1000 --updates-per-episode 3 --learning-rate-end 0"
    main(["train", "--env", env, *shlex.split(small), "--run-dir", str(tmp_path / "run")])
    last = read_rows(tmp_path / "run")[-1]
    assert (last["episode"], last["updates"]) == (8, 8 * 3 * 2)
    assert last["loss"] > 0 and last["transitions"] >= 8 * 3 * 2 * 60


def test_settings_of_a_fourth_agent_come_back_from_json():
    config = TrainConfig.of(algorithm="own_agent:A2C", random_episodes=0, trace=0.5)
    assert config.agent == A2CConfig(trace=0.5)
    again = from_json(to_json(config))
    assert isinstance(again.agent, dict) and with_typed_agent(again) == config
    values = json.loads(to_json(config))
    values["agent"]["trace"] = "long"
    with pytest.raises(ValueError, match=r"field agent.trace must be"):
        with_typed_agent(from_json(json.dumps(values)))
