"""Settings: to JSON and back unchanged, and one line for everything that does not fit."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from memoroids import __version__
from memoroids.agents.dqn import DQNConfig
from memoroids.runs.settings import TrainConfig, resolve_memory, suggest
from memoroids.memory import REGISTRY

CHANGED = TrainConfig(
    env="CartPole-v1",
    memory="ffm",
    memory_sizes={"trace_size": 8, "max_decay": 1.5},
    preset="paper",
    seed=7,
    run_dir=Path("runs/one two"),
    width=32,
    previous_action=True,
    previous_reward=True,
    cut_batch=True,
    epsilon_end=0.1,
    dqn=DQNConfig(learning_rate=3e-4, warmup=0, polyak=0.9975),
    wandb=True,
)


@pytest.mark.parametrize("config", [TrainConfig(), CHANGED], ids=["defaults", "changed"])
def test_settings_come_back_from_json_as_they_were(config: TrainConfig):
    again = TrainConfig.from_json(config.to_json())
    assert again == config
    assert isinstance(again.run_dir, type(config.run_dir))
    assert isinstance(again.dqn, DQNConfig)


def test_json_holds_every_setting():
    written = json.loads(CHANGED.to_json())
    assert set(written) == {"version"} | {field.name for field in dataclasses.fields(TrainConfig)}
    assert written["version"] == __version__
    assert set(written["dqn"]) == {field.name for field in dataclasses.fields(DQNConfig)}
    assert written["run_dir"] == "runs/one two" and written["dqn"]["polyak"] == 0.9975


def test_a_config_of_another_version_says_so_and_which():
    values = json.loads(TrainConfig().to_json())
    del values["batching"]
    with pytest.raises(ValueError, match=r"^missing field batching$"):
        TrainConfig.from_json(json.dumps(values))
    for version, said in (("0.0.1", "memoroids 0.0.1"), (None, "memoroids an earlier version")):
        values["version"] = version
        if version is None:
            del values["version"]
        with pytest.raises(ValueError, match=rf"^written by {said}, this is {__version__}: missing field batching$"):
            TrainConfig.from_json(json.dumps(values))
    # Another version with the same settings is understood.
    assert TrainConfig.from_json(json.dumps(json.loads(TrainConfig().to_json()) | {"version": "9"})) == TrainConfig()


def changed(path: str, value: Any) -> str:
    values = json.loads(TrainConfig().to_json())
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
        ("memory", None),
        ("memory_sizes", [1]),
        ("memory_sizes", {"layers": "two"}),
        ("memory_sizes", {"layers": True}),
        ("batching", "segments?"),
        ("preset", "tunde"),
        ("seed", 1.5),
        ("seed", True),
        ("seed", "0"),
        ("run_dir", 4),
        ("previous_action", "yes"),
        ("previous_reward", 1),
        ("width", None),
        ("epsilon_end", "0.1"),
        ("epsilon_end", False),
        ("dqn", 1),
        ("dqn", None),
        ("dqn.learning_rate", "fast"),
        ("dqn.warmup", 1.5),
        ("tensorboard", "no"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(path: str, value: Any):
    with pytest.raises(ValueError) as error:
        TrainConfig.from_json(changed(path, value))
    assert f"field {path} " in str(error.value) and "\n" not in str(error.value)


def test_a_whole_number_will_do_for_a_float():
    assert TrainConfig.from_json(changed("dqn.max_grad_norm", 1)).dqn.clip == 1


@pytest.mark.parametrize(("path", "nearest"), [("widht", "width"), ("dqn.learning_rat", "learning_rate")])
def test_an_unknown_field_is_named_with_the_nearest(path: str, nearest: str):
    with pytest.raises(ValueError) as error:
        TrainConfig.from_json(changed(path, 1))
    assert f"unknown field {path}" in str(error.value) and f"did you mean {nearest}?" in str(error.value)


@pytest.mark.parametrize("path", ["num_envs", "dqn.discount"])
def test_a_missing_field_is_named(path: str):
    values = json.loads(TrainConfig().to_json())
    *above, last = path.split(".")
    del (values[above[0]] if above else values)[last]
    with pytest.raises(ValueError, match=f"missing field {path}$"):
        TrainConfig.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '{"env": ', "{}"])
def test_what_is_no_object_of_settings_is_refused(text: str):
    with pytest.raises(ValueError) as error:
        TrainConfig.from_json(text)
    assert "\n" not in str(error.value)


LOWEST = {
    "width": 1,
    "batch_size": 1,
    "train_episodes": 1,
    "num_envs": 1,
    "eval_every": 1,
    "eval_episodes": 1,
    "final_episodes": 1,
    "checkpoint_every": 1,
    "random_episodes": 0,
    "updates_per_episode": 0,
    "buffer_size": 2,
    "seed": 0,
}


@pytest.mark.parametrize("name", LOWEST)
def test_a_number_below_its_range_is_named_with_its_bound(name: str):
    low = LOWEST[name]
    assert getattr(TrainConfig(**{name: low}), name) == low
    with pytest.raises(ValueError, match=f"^{name} must be at least {low}, got {low - 1}$"):
        TrainConfig(**{name: low - 1})
    with pytest.raises(ValueError, match=name):
        TrainConfig.from_json(changed(name, low - 1))


@pytest.mark.parametrize("name", ["epsilon_start", "epsilon_end"])
@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_shares_of_random_actions_lie_between_none_and_all(name: str, value: float):
    assert TrainConfig(**{name: 0.0}) != TrainConfig(**{name: 1.0})
    with pytest.raises(ValueError, match=f"^{name} must be between 0 and 1"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", -1e-4),
        ("learning_rate", float("nan")),
        ("max_grad_norm", 0.0),
        ("warmup", -1),
        ("polyak", -0.1),
        ("polyak", 1.1),
        ("polyak", float("nan")),
        ("discount", -0.1),
        ("discount", 1.1),
    ],
)
def test_a_learner_setting_out_of_range_is_named(name: str, bad: float):
    with pytest.raises(ValueError, match=f"^{name} must"):
        DQNConfig(**{name: bad})


def test_the_seed_is_bounded_by_what_a_random_key_can_hold():
    # Keys hold 32 bits here: a seed past them would either raise later or stand for another, smaller one.
    with pytest.raises(ValueError, match="seed"):
        TrainConfig(seed=2**64)
    try:
        large = TrainConfig(seed=2**32 + 5)
    except ValueError:
        return
    assert jax.random.key(large.seed) != jax.random.key(5)


def test_suggestions_name_the_nearest_or_else_all():
    assert suggest("LRUU", ["lru", "gru"]) == "; did you mean lru?"
    assert suggest("zzz", ["lru", "gru"]) == "; there are lru, gru"


@pytest.mark.parametrize("name", REGISTRY)
def test_memories_of_the_registry_are_found_by_name(name: str):
    assert resolve_memory(name) is REGISTRY[name]
    assert TrainConfig(memory=name).memory_factory() is REGISTRY[name]


@pytest.mark.parametrize(
    ("name", "nearest"), [("lruu", "lru"), ("FFM", "ffm"), ("linear-transformer", "linear_transf")]
)
def test_an_unknown_memory_is_answered_with_the_nearest(name: str, nearest: str):
    with pytest.raises(ValueError, match=f"unknown memory '{name}'; did you mean {nearest}"):
        resolve_memory(name)


def test_a_memory_like_no_other_is_answered_with_all():
    with pytest.raises(ValueError) as error:
        resolve_memory("qqq")
    assert all(name in str(error.value) for name in REGISTRY)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that commands are run in, as an installed command sees it: not on Python's path."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("workplace_"):
            del sys.modules[name]


def test_a_factory_of_the_users_own_is_found_next_to_where_the_command_is_run(workplace: Path):
    (workplace / "workplace_package").mkdir()
    (workplace / "workplace_package" / "__init__.py").touch()
    (workplace / "workplace_package" / "models.py").write_text(
        "def build(input_size, output_size, *, key): return 42\n"
    )
    factory: Any = resolve_memory("workplace_package.models:build")
    assert factory(1, 2, key=None) == 42


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("workplace_missing:build", None, "No module named 'workplace_missing'"),
        ("workplace_broken:build", "def build(:\n", "cannot import workplace_broken"),
        ("workplace_raises:build", "raise RuntimeError('first\\nsecond')\n", "first second"),
        ("workplace_empty:build", "", "no callable 'build'"),
        ("workplace_number:build", "build = 3\n", "no callable 'build'"),
        ("workplace_nameless:", "build = print\n", "no callable ''"),
        (":build", None, "cannot import"),
    ],
)
def test_a_factory_that_cannot_be_had_is_answered_in_one_line(name: str, text: str | None, word: str, workplace: Path):
    if text is not None:
        (workplace / f"{name.partition(':')[0]}.py").write_text(text)
    with pytest.raises(ValueError) as error:
        resolve_memory(name)
    message = str(error.value)
    assert repr(name) in message and word in message and "\n" not in message
