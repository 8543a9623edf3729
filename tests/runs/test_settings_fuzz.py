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
from memoroids.runs.settings import TrainConfig
from memoroids.replay import PriorityConfig

PARTS = ("dqn", "ppo", "pqn", "priority")
# Other settings are read or refused by what these say.
DECIDING = {"env", "algorithm", "prioritised"}
BASES = {
    "defaults": TrainConfig(),
    "segments": TrainConfig(batching="segments", step_periods=(4, 0.5), memory_sizes={"layers": 1}, train_steps=9),
    "device": TrainConfig(
        env="device:RepeatFirstEasy", prioritised=True, priority=PriorityConfig(mix=0.5), seeds=2, rollout=8, tapes=2
    ),
    "ppo": TrainConfig(env="device:CartPole", algorithm="ppo", random_episodes=0, ppo=PPOConfig(entropy_end=0)),
    "pqn": TrainConfig(algorithm="pqn", random_episodes=0, pqn=PQNConfig(learning_rate_end=1e-5)),
}
FLOATS = {
    "epsilon_start", "epsilon_end", "time_limit",
    "dqn.learning_rate", "dqn.learning_rate_end", "dqn.max_grad_norm", "dqn.polyak", "dqn.discount",
    "ppo.learning_rate", "ppo.learning_rate_end", "ppo.max_grad_norm", "ppo.discount", "ppo.lambda_", "ppo.clip_ratio",
    "ppo.value_weight", "ppo.entropy", "ppo.entropy_end",
    "pqn.learning_rate", "pqn.learning_rate_end", "pqn.max_grad_norm", "pqn.discount", "pqn.lambda_",
    "priority.exponent", "priority.correction", "priority.mix", "priority.floor",
}  # fmt: skip
COUNTS = {
    "segment_length", "seed", "width", "chunk", "random_episodes", "train_episodes", "train_steps",
    "updates_per_episode", "batch_size", "buffer_size", "num_envs", "rollout", "tapes", "seeds", "devices", "eval_every",
    "eval_episodes", "final_episodes", "sensitivity_every", "max_faults", "checkpoint_every",
    "max_skipped", "keep_checkpoints", "processes",
    "dqn.warmup", "ppo.warmup", "ppo.epochs", "ppo.minibatches", "pqn.warmup", "pqn.epochs", "pqn.minibatches",
}  # fmt: skip
WORDS = {
    "algorithm", "batching", "segment_state", "segment_count", "preset", "mapping", "dqn.next_state", "dqn.loss"
}  # fmt: skip
SWITCHES = {
    "previous_action", "previous_reward", "cut_batch", "prioritised", "tensorboard", "wandb", "check_bounds",
    "ppo.normalise_advantages",
}  # fmt: skip
OPTIONAL = {
    "run_dir", "chunk", "previous_action", "train_steps", "rollout", "dqn.learning_rate_end", "ppo.learning_rate_end",
    "ppo.entropy_end", "pqn.learning_rate_end",
}  # fmt: skip


def written(base: str) -> dict[str, Any]:
    return json.loads(BASES[base].to_json())


def paths(values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if name != "version":
            yield name
        if name in PARTS:
            yield from (f"{name}.{inner}" for inner in value)


FIELDS = list(paths(written("defaults")))
NAMES = {path.rpartition(".")[2] for path in FIELDS}


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
        config = TrainConfig.from_json(json.dumps(values))
    except ValueError as error:
        message = str(error)
        assert message and len(message.splitlines()) == 1, message
        return message
    again = config.to_json()
    assert TrainConfig.from_json(again) == config
    assert TrainConfig.from_json(again).to_json() == again
    assert_finite(dataclasses.asdict(config))
    return config


def assert_finite(value: Any) -> None:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    for each in inside:
        assert_finite(each)
    assert not isinstance(value, float) or math.isfinite(value)


def test_every_field_is_known_to_these_tests():
    kinds = [FLOATS, COUNTS, WORDS, SWITCHES, {"env", "memory", "memory_sizes", "env_options", "run_dir"}]
    assert sum(map(len, kinds)) + len({"step_periods", *PARTS}) == len(FIELDS)
    assert set().union(*kinds, {"step_periods"}, PARTS) == set(FIELDS)


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
    if path == "step_periods":
        return isinstance(value, list) and all(of_kind("dqn.max_grad_norm", each) for each in value)
    if path in ("memory_sizes", "env_options"):
        fine = (str, bool) if path == "env_options" else ()
        return isinstance(value, dict) and all(
            isinstance(each, fine) or of_kind("dqn.max_grad_norm", each) for each in value.values()
        )
    # Of words which ones there are is left to the code; parts are held field by field.
    return isinstance(value, str) and path not in PARTS


@settings(max_examples=1200)
@given(BASE, st.sampled_from(FIELDS), VALUES)
@example("defaults", "dqn.learning_rate", 10**400)
@example("defaults", "step_periods", [10**400])
def test_any_value_in_any_field_is_refused_by_name_or_comes_back(base: str, path: str, value: Any):
    values = written(base)
    put(values, path, lambda inner, key: inner.__setitem__(key, value))
    got, name = read(values), path.rpartition(".")[2]
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
@given(st.sampled_from(sorted(FLOATS | COUNTS)), st.one_of(st.integers(max_value=-1), st.floats(max_value=-1e-9)))
def test_no_number_of_a_config_is_negative(path: str, value: float):
    values = written("defaults")
    put(values, path, lambda inner, key: inner.__setitem__(key, value))
    got = read(values)
    assert isinstance(got, str) and names(got, path.rpartition(".")[2])


NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("path", sorted(FLOATS))
@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_number_that_is_not_finite_is_refused_by_name(path: str, value: float):
    # Where a part is another algorithm's its settings are refused anyway, for that.
    base = path.partition(".")[0] if path.startswith(("ppo.", "pqn.")) else "device"
    values = written(base)
    put(values, path, lambda inner, key: inner.__setitem__(key, value))
    with pytest.raises(ValueError) as error:
        TrainConfig.from_json(json.dumps(values))
    assert names(str(error.value), path.rpartition(".")[2]) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("path", ["step_periods", "memory_sizes", "env_options"])
@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_number_that_is_not_finite_is_refused_inside_lists_and_tables(path: str, value: float):
    values = written("defaults")
    values[path] = [4.0, value] if path == "step_periods" else {"fine": 1.5, "bad": value}
    with pytest.raises(ValueError) as error:
        TrainConfig.from_json(json.dumps(values))
    assert names(str(error.value), path) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("path", FIELDS)
def test_every_missing_field_is_named(path: str):
    values = written("defaults")
    put(values, path, lambda inner, key: inner.pop(key))
    assert read(values) == f"missing field {path}"


@settings(max_examples=250)
@given(st.sampled_from(["", *(f"{part}." for part in PARTS)]), TEXT, PLAIN)
@example("", "first\nsecond", 1)
@example("dqn.", "first\rsecond", 1)
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
@given(TEXT, st.sampled_from(FIELDS))
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
