"""Settings by the names of options, what must hold of each, and what between them."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest

from memoroids.agents.agent_registry import REGISTRY
from memoroids.agents.dqn import DQNConfig
from memoroids.agents.ppo import PPOConfig
from memoroids.cli.train_command import read_settings
from memoroids.memory.registry import REGISTRY as MEMORIES
from memoroids.runs.settings import TrainConfig, options
from memoroids.runs.settings_file import from_json, to_json


@pytest.mark.parametrize("name", options())
def test_every_option_is_read_and_replaced_by_its_name(name: str):
    config = TrainConfig()
    assert config.replace(**{name: config.get(name)}) == config


def test_no_setting_of_an_agent_has_the_name_of_another_option():
    for kind in REGISTRY.values():
        assert not {each.name for each in dataclasses.fields(kind.settings)} & set(options())


def test_an_agents_settings_are_set_by_their_names_or_as_a_whole():
    config = TrainConfig.of(algorithm="ppo", random_episodes=0, lambda_=0.5, num_envs=16)
    assert config.agent == PPOConfig(lambda_=0.5) and config.collection.num_envs == 16
    assert config.replace(epochs=2).agent == PPOConfig(lambda_=0.5, epochs=2)
    assert config.replace(agent=PPOConfig(epochs=3), lambda_=0.1).agent == PPOConfig(epochs=3, lambda_=0.1)
    # Another algorithm begins from its own defaults.
    assert config.replace(algorithm="dqn").agent == DQNConfig()


def test_an_agent_without_replay_begins_without_random_episodes():
    config = TrainConfig.of(env="CartPole-v1", algorithm="ppo", lambda_=0.9)
    assert config.budget.random_episodes == 0 and config.agent == PPOConfig(lambda_=0.9)
    with pytest.raises(ValueError, match="random_episodes 5 is for agents with replay"):
        TrainConfig.of(algorithm="ppo", random_episodes=5)


def test_a_preset_is_applied_in_python_as_on_the_command_line():
    for asked in (
        {"env": "RepeatPreviousEasy"},
        {"env": "device:RepeatPreviousEasy", "algorithm": "ppo", "seed": 3},
        {"env": "MineSweeperEasy", "memory": "ffm", "learning_rate": 7e-4, "memory_sizes": {"trace_size": 8}},
    ):
        words = [word for name, value in asked.items() if name != "memory_sizes" for word in (f"--{name}", str(value))]
        sizes = [str(word) for pair in asked.get("memory_sizes", {}).items() for word in pair]
        words = [word.replace("learning_rate", "learning-rate") for word in words]
        given = read_settings([*words, *(["--memory-sizes", *sizes] if sizes else [])])
        assert TrainConfig.of(preset="tuned", **asked | {"env": given.env.id}) == given
    assert TrainConfig.of(preset="tuned", env="RepeatPreviousEasy") != TrainConfig.of(env="RepeatPreviousEasy")


def test_a_preset_is_not_a_setting_that_could_name_another_than_what_was_run():
    with pytest.raises(TypeError, match="preset"):
        TrainConfig(preset="tuned")  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match="preset"):
        TrainConfig().replace(preset="tuned")
    with pytest.raises(ValueError, match="unknown preset 'tunde'; did you mean tuned"):
        TrainConfig.of(preset="tunde")


def test_a_setting_that_there_is_not_is_named_with_its_nearest_or_with_the_agent_that_has_it():
    with pytest.raises(ValueError, match="unknown setting 'widht'; did you mean width"):
        TrainConfig.of(widht=3)
    with pytest.raises(ValueError, match="epochs is a setting of ppo and pqn, but the algorithm is dqn"):
        TrainConfig.of(epochs=2)
    with pytest.raises(ValueError, match="agent holds PPOConfig, but the algorithm dqn takes DQNConfig"):
        TrainConfig.of(agent=PPOConfig())


@pytest.mark.parametrize("name", MEMORIES)
def test_the_memory_that_is_named_is_the_registrys(name: str):
    assert TrainConfig.of(memory=name).memory_factory() is MEMORIES[name]


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
    assert TrainConfig.of(**{name: low}).get(name) == low
    with pytest.raises(ValueError, match=f"^{name} must be at least {low}, got {low - 1}$"):
        TrainConfig.of(**{name: low - 1})


@pytest.mark.parametrize("name", ["epsilon_start", "epsilon_end"])
@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_shares_of_random_actions_lie_between_none_and_all(name: str, value: float):
    assert TrainConfig.of(**{name: 0.0}) != TrainConfig.of(**{name: 1.0})
    with pytest.raises(ValueError, match=f"^{name} must be between 0 and 1"):
        TrainConfig.of(**{name: value})


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
        TrainConfig.of(seed=2**64)
    try:
        large = TrainConfig.of(seed=2**32 + 5)
    except ValueError:
        return
    assert jax.random.key(large.seed) != jax.random.key(5)


@pytest.mark.parametrize("option", ["env_options", "memory_sizes"])
def test_keyword_arguments_of_any_plain_type_come_back_from_a_file_as_they_were(option: str):
    values = {"a": True, "b": None, "c": [1, 2.5], "d": {"e": "f"}, "g": "3", "h": (4, (5,))}
    config = TrainConfig.of(**{option: values})
    assert config.get(option) == values | {"h": [4, [5]]}
    assert from_json(to_json(config)) == config
    assert values["h"] == (4, (5,))


@pytest.mark.parametrize(("option", "name"), [("env_options", "--env-options"), ("memory_sizes", "memory_sizes")])
@pytest.mark.parametrize("value", [np.int64(3), math.nan, [math.inf], {1: 2}, object(), max])
def test_keyword_arguments_that_a_file_would_change_are_refused(option: str, name: str, value: Any):
    with pytest.raises(ValueError, match=rf"^{name} size must be ") as error:
        TrainConfig.of(**{option: {"fine": 1, "size": value}})
    assert "\n" not in str(error.value)


def test_only_the_factories_of_ours_that_are_listed_need_no_trust():
    ours = "memoroids.envs.host.development"
    assert TrainConfig.of(env=f"{ours}:tmaze", env_options={"length": 3}).own_code == []
    # A run of somebody else's that names other functions of ours could write files, or import what its options name.
    for name in (f"{ours}:Seen", f"{ours}:gym", f"device:{ours}:tmaze", "memoroids._util.files:atomic_write_text"):
        assert TrainConfig.of(env=name).own_code == [name]
    named = f"{ours}:tmaze"
    assert TrainConfig.of(env=named, memory="own_memory:Make").own_code == ["own_memory:Make"]
