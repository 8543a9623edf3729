"""Any wrong value in any field of a config: one line that names the field, or a config that comes back as it was."""

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memoroids.agents.ppo import PPOConfig
from memoroids.agents.pqn import PQNConfig
from memoroids.replay import PriorityConfig
from memoroids.runs.settings import TrainConfig, options
from memoroids.runs.settings_file import ADDED, from_json, to_json

PARTS = (*(each.name for each in dataclasses.fields(TrainConfig) if each.name not in options()), "env")
# Other settings are read or refused by what these say.
DECIDING = {"env.id", "algorithm", "replay.prioritised"}
BASES = {
    "defaults": TrainConfig(),
    "segments": TrainConfig.of(batching="segments", step_periods=(4, 0.5), memory_sizes={"layers": 1}, steps=9),
    "device": TrainConfig.of(
        env="device:RepeatFirstEasy", prioritised=True, priority=PriorityConfig(mix=0.5), seeds=2, rollout=8, tapes=2
    ),
    "ppo": TrainConfig.of(env="device:CartPole", algorithm="ppo", random_episodes=0, agent=PPOConfig(entropy_end=0)),
    "pqn": TrainConfig.of(algorithm="pqn", random_episodes=0, agent=PQNConfig(learning_rate_end=1e-5)),
}
FLOATS = {
    "exploration.epsilon_start", "exploration.epsilon_end", "exploration.epsilon_decay", "env.time_limit",
    "agent.learning_rate", "agent.learning_rate_end", "agent.max_grad_norm", "agent.polyak", "agent.discount",
    "agent.lambda_",
    "priority.exponent", "priority.correction", "priority.mix", "priority.floor", "evaluation.target_return",
}  # fmt: skip
OTHER_FLOATS = {
    "ppo": ("learning_rate", "learning_rate_end", "max_grad_norm", "discount", "lambda_", "clip_ratio", "value_weight",
            "entropy", "entropy_end", "prediction_weight"),
    "pqn": ("learning_rate", "learning_rate_end", "max_grad_norm", "discount", "lambda_"),
}  # fmt: skip
"""Of the agents that the defaults do not have."""
SIGNED = {"evaluation.target_return"}
COUNTS = {
    "replay.segment_length", "seed", "network.width", "network.parameters", "network.chunk", "budget.random_episodes",
    "budget.train_episodes", "budget.steps", "replay.updates_per_episode", "replay.steps_per_update",
    "replay.batch_size",
    "replay.buffer_size", "collection.num_envs", "collection.rollout", "replay.tapes", "placement.seeds",
    "placement.devices", "evaluation.eval_every", "evaluation.eval_episodes", "evaluation.final_episodes",
    "evaluation.sensitivity_every", "collection.max_faults", "checkpoint.checkpoint_every", "checkpoint.max_skipped",
    "checkpoint.keep_checkpoints", "collection.processes", "agent.warmup",
    "env.max_episode_steps",
}  # fmt: skip
WORDS = {
    "algorithm", "replay.batching", "replay.segment_state", "replay.segment_count", "placement.mapping",
    "agent.next_state", "agent.loss", "env.observation",
}  # fmt: skip
SWITCHES = {
    "env.previous_action", "env.previous_reward", "replay.cut_batch", "replay.prioritised", "trackers.tensorboard",
    "trackers.wandb", "trackers.trackio", "env.check_bounds", "env.vector", "collection.overlap",
    "evaluation.stochastic", "network.check_memory", "network.normalise", "agent.scale_rewards",
}  # fmt: skip
OPTIONAL = {
    "run_dir", "network.parameters", "network.chunk", "env.previous_action", "budget.steps", "collection.rollout",
    "budget.train_episodes",
    "replay.updates_per_episode", "evaluation.eval_every", "checkpoint.checkpoint_every",
    "agent.learning_rate_end", "evaluation.target_return", "env.max_episode_steps",
}  # fmt: skip


def written(base: str) -> dict[str, Any]:
    return json.loads(to_json(BASES[base]))


def paths(values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if name not in ("version", "schema"):
            yield name
        if name in PARTS:
            yield from (f"{name}.{inner}" for inner in value)


FIELDS = list(paths(written("defaults")))
REQUIRED = [path for path in FIELDS if path not in ADDED]
NAMES = {path.rpartition(".")[2] for path in FIELDS} | {"seeds", "env"}


def put(values: dict[str, Any], path: str, change: Any) -> None:
    """Applies `change(object, key)` where `path` leads."""
    *above, last = path.split(".")
    for name in above:
        values = values[name]
    change(values, last)


def names(message: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) is not None


def read(values: Any) -> TrainConfig | str:
    """The config in these values, held to come back as it was, or the one line that refuses them."""
    try:
        config = from_json(json.dumps(values))
    except ValueError as error:
        message = str(error)
        assert message and len(message.splitlines()) == 1, message
        return message
    again = to_json(config)
    assert from_json(again) == config
    assert to_json(from_json(again)) == again
    assert_finite(dataclasses.asdict(config))
    return config


def assert_finite(value: Any) -> None:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    for each in inside:
        assert_finite(each)
    assert not isinstance(value, float) or math.isfinite(value)


def test_every_field_is_known_to_these_tests():
    kinds = [
        FLOATS,
        COUNTS,
        WORDS,
        SWITCHES,
        {"env.id", "network.memory", "network.memory_sizes", "env.options", "run_dir"},
    ]
    assert sum(map(len, kinds)) + len({"env.step_periods", *PARTS}) == len(FIELDS)
    assert set().union(*kinds, {"env.step_periods"}, PARTS) == set(FIELDS)


TEXT = st.one_of(st.sampled_from(["", "tape", "loop", "a\nb", "\u2028", "device:", "None", "1"]), st.text(max_size=8))
FINITE = st.one_of(
    st.sampled_from([-1, 0, 1, 2, -0.0, 0.5, -0.5, 1.5, 1e-300, 1e300, 2**31, 2**32, 2**64, 10**400]),
    st.integers(-3, 40),
    st.floats(allow_nan=False, allow_infinity=False),
)
PLAIN = st.one_of(st.none(), st.booleans(), FINITE, TEXT)
VALUES = st.recursive(
    PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)), max_leaves=4
)  # fmt: skip
BASE = st.sampled_from(sorted(BASES))


def of_kind(path: str, value: Any) -> bool:
    """Whether a value of this type may stand in the field at all."""
    if value is None:
        return path in OPTIONAL
    if path in SWITCHES:
        return isinstance(value, bool)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if path in FLOATS:
        return number
    if path in COUNTS:
        return number and isinstance(value, int)
    if path == "env.step_periods":
        return isinstance(value, list) and all(of_kind("agent.max_grad_norm", each) for each in value)
    if path in ("network.memory_sizes", "env.options"):
        return isinstance(value, dict)
    # Of words which ones there are is left to the code; parts are held field by field.
    return isinstance(value, str) and path not in PARTS


@settings(max_examples=1200)
@given(BASE, st.sampled_from(FIELDS), VALUES)
@example("defaults", "agent.learning_rate", 10**400)
@example("defaults", "env.step_periods", [10**400])
def test_any_value_in_any_field_is_refused_by_name_or_comes_back(base: str, path: str, value: Any):
    values = written(base)
    put(values, path, lambda inner, key: inner.__setitem__(key, value))
    got, name = read(values), path.rpartition(".")[2]
    if path.startswith("agent.") and name not in written(base)["agent"]:
        assert got.startswith(f"unknown field {path}")
        return
    if path in PARTS and isinstance(value, dict):
        assert isinstance(got, str) and any(names(got, field) for field in NAMES | set(value))
    elif not of_kind(path, value):
        assert isinstance(got, str) and got.startswith(f"field {path} must be "), got
    elif isinstance(got, str):
        # What fits alone may not fit the others, which are named where they only fit what was there before.
        assert names(got, name) or (path in DECIDING and any(names(got, field) for field in NAMES)), got
    else:
        inner: Any = got
        for part in path.split("."):
            inner = getattr(inner, part)
        wanted = tuple(value) if isinstance(value, list) else value
        assert (inner == wanted and type(inner) is type(wanted)) or path == "run_dir"


@settings(max_examples=250)
@given(
    st.sampled_from(sorted((FLOATS | COUNTS) - SIGNED)),
    st.one_of(st.integers(max_value=-1), st.floats(max_value=-1e-9)),
)
def test_no_number_of_a_config_is_negative(path: str, value: float):
    values = written("defaults")
    put(values, path, lambda inner, key: inner.__setitem__(key, value))
    got = read(values)
    assert isinstance(got, str) and names(got, path.rpartition(".")[2])


NOT_FINITE = [math.nan, math.inf, -math.inf]


FLOATS_OF = [("device", path) for path in sorted(FLOATS)]
FLOATS_OF += [(base, f"agent.{name}") for base, names_ in OTHER_FLOATS.items() for name in names_]


@pytest.mark.parametrize(("base", "path"), FLOATS_OF)
@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_number_that_is_not_finite_is_refused_by_name(base: str, path: str, value: float):
    values = written(base)
    put(values, path, lambda inner, key: inner.__setitem__(key, value))
    with pytest.raises(ValueError) as error:
        from_json(json.dumps(values))
    assert names(str(error.value), path.rpartition(".")[2]) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("path", ["env.step_periods", "network.memory_sizes", "env.options"])
@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_number_that_is_not_finite_is_refused_inside_lists_and_tables(path: str, value: float):
    values = written("defaults")
    wrong = [4.0, value] if path == "env.step_periods" else {"fine": 1.5, "bad": [{"inside": value}]}
    put(values, path, lambda inner, key: inner.__setitem__(key, wrong))
    with pytest.raises(ValueError) as error:
        from_json(json.dumps(values))
    assert names(str(error.value), path.rpartition(".")[2]) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("path", REQUIRED)
def test_every_missing_field_is_named(path: str):
    values = written("defaults")
    put(values, path, lambda inner, key: inner.pop(key))
    assert read(values) == f"missing field {path}"


@pytest.mark.parametrize("base", ["defaults", "ppo"])
def test_settings_that_came_later_may_be_missing_and_have_their_defaults(base: str):
    whole, values = written(base), written(base)
    for path in ADDED:
        group, _, name = path.rpartition(".")
        values[group].pop(name, None)
    assert values != whole
    assert read(values) == from_json(json.dumps(whole)) == BASES[base]


@settings(max_examples=250)
@given(st.sampled_from(["", *(f"{part}." for part in PARTS)]), TEXT, PLAIN)
@example("", "first\nsecond", 1)
@example("agent.", "first\rsecond", 1)
def test_an_unknown_field_is_named_in_one_line(prefix: str, name: str, value: Any):
    values = written("defaults")
    inner = values[prefix[:-1]] if prefix else values
    if name in inner:
        return
    inner[name] = value
    got = read(values)
    assert isinstance(got, str) and "unknown field " in got and prefix in got
    # A name of several lines can only stand there escaped.
    assert not name.isprintable() or name in got


@settings(max_examples=150)
@given(TEXT, st.sampled_from(REQUIRED))
@example("1\n2", "seed")
def test_the_version_that_wrote_a_config_leaves_the_message_one_line(version: str, path: str):
    values = written("defaults") | {"version": version}
    put(values, path, lambda inner, key: inner.pop(key))
    got = read(values)
    assert isinstance(got, str) and got.endswith(f"missing field {path}")


@settings(max_examples=250)
@given(BASE, st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), min_size=2, max_size=4))
def test_several_values_at_once_are_refused_by_a_name_or_come_back(base: str, changes: list[tuple[str, Any]]):
    values = written(base)
    for path, value in sorted(changes, key=lambda change: "." not in change[0]):
        put(values, path, lambda inner, key, value=value: inner.__setitem__(key, value))
    got = read(values)
    inside = {name for _, value in changes if isinstance(value, dict) for name in value}
    assert isinstance(got, TrainConfig) or any(names(got, field) for field in NAMES | inside)
