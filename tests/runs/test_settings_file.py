"""Settings as JSON: back unchanged, and one line for everything that does not fit."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from memoroids import __version__
from memoroids.agents.dqn import DQNConfig
from memoroids.runs.settings import TrainConfig, flat, options
from memoroids.runs.settings_file import SCHEMA, from_json, to_json

CHANGED = TrainConfig.of(
    env="CartPole-v1",
    memory="ffm",
    memory_sizes={"trace_size": 8, "max_decay": 1.5},
    seed=7,
    run_dir=Path("runs/one two"),
    width=32,
    previous_action=True,
    previous_reward=True,
    cut_batch=True,
    epsilon_end=0.1,
    agent=DQNConfig(learning_rate=3e-4, warmup=0, polyak=0.9975),
    wandb=True,
)


@pytest.mark.parametrize("config", [TrainConfig(), CHANGED], ids=["defaults", "changed"])
def test_settings_come_back_from_json_as_they_were(config: TrainConfig):
    again = from_json(to_json(config))
    assert again == config
    assert isinstance(again.run_dir, type(config.run_dir))
    assert isinstance(again.agent, DQNConfig)


def test_json_holds_every_setting():
    written = json.loads(to_json(CHANGED))
    assert set(written) == {"version", "schema"} | {field.name for field in dataclasses.fields(TrainConfig)}
    assert written["version"] == __version__ and written["schema"] == SCHEMA
    assert set(written["agent"]) == {field.name for field in dataclasses.fields(DQNConfig)}
    assert written["run_dir"] == "runs/one two" and written["agent"]["polyak"] == 0.9975
    assert set(flat(written)) >= set(options())


def test_a_config_of_another_version_says_so_and_which():
    values = json.loads(to_json(TrainConfig()))
    del values["replay"]["batching"]
    with pytest.raises(ValueError, match=r"^missing field replay.batching$"):
        from_json(json.dumps(values))
    for version, said in (("0.0.1", "memoroids 0.0.1"), (None, "memoroids an earlier version")):
        values["version"] = version
        if version is None:
            del values["version"]
        wanted = rf"^written by {said}, this is {__version__}: missing field replay.batching$"
        with pytest.raises(ValueError, match=wanted):
            from_json(json.dumps(values))
    # Another version with the same settings is understood.
    assert from_json(json.dumps(json.loads(to_json(TrainConfig())) | {"version": "9"})) == TrainConfig()


@pytest.mark.parametrize("schema", [None, 1, 3, "2"])
def test_a_config_of_another_schema_is_refused_with_the_version_that_wrote_it(schema: Any):
    values = json.loads(to_json(TrainConfig())) | {"version": "0.3.0", "schema": schema}
    if schema is None:  # as before schemas were written
        del values["schema"]
    with pytest.raises(ValueError) as error:
        from_json(json.dumps(values))
    message = str(error.value)
    assert message.startswith(f"written by memoroids 0.3.0 with settings of schema {schema or 1}, ")
    assert "\n" not in message and str(SCHEMA) in message


def changed(path: str, value: Any) -> str:
    values = json.loads(to_json(TrainConfig()))
    *above, last = path.split(".")
    inner = values
    for name in above:
        inner = inner[name]
    inner[last] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("env", 3),
        ("env.id", 3),
        ("network.memory", None),
        ("network.memory_sizes", [1]),
        ("network.memory_sizes", "layers"),
        ("env.options", None),
        ("replay.batching", "segments?"),
        ("seed", 1.5),
        ("seed", True),
        ("seed", "0"),
        ("run_dir", 4),
        ("env.previous_action", "yes"),
        ("env.previous_reward", 1),
        ("network.width", None),
        ("exploration.epsilon_end", "0.1"),
        ("exploration.epsilon_end", False),
        ("agent", 1),
        ("agent", None),
        ("agent.learning_rate", "fast"),
        ("agent.warmup", 1.5),
        ("trackers.tensorboard", "no"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(path: str, value: Any):
    with pytest.raises(ValueError) as error:
        from_json(changed(path, value))
    assert f"field {path} " in str(error.value) and "\n" not in str(error.value)


def test_a_whole_number_will_do_for_a_float():
    assert from_json(changed("agent.max_grad_norm", 1)).agent.max_grad_norm == 1


@pytest.mark.parametrize(
    ("path", "nearest"), [("network.widht", "width"), ("netwrok", "network"), ("agent.learning_rat", "learning_rate")]
)
def test_an_unknown_field_is_named_with_the_nearest(path: str, nearest: str):
    with pytest.raises(ValueError) as error:
        from_json(changed(path, 1))
    assert f"unknown field {path}" in str(error.value) and f"did you mean {nearest}?" in str(error.value)


@pytest.mark.parametrize("path", ["collection.num_envs", "agent.discount", "replay"])
def test_a_missing_field_is_named(path: str):
    values = json.loads(to_json(TrainConfig()))
    *above, last = path.split(".")
    del (values[above[0]] if above else values)[last]
    with pytest.raises(ValueError, match=f"missing field {path}$"):
        from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '{"env": ', "{}"])
def test_what_is_no_object_of_settings_is_refused(text: str):
    with pytest.raises(ValueError) as error:
        from_json(text)
    assert "\n" not in str(error.value)
