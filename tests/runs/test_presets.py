"""Presets: the paper's settings as published, and ours for the same nine tasks."""

import copy
import dataclasses
from typing import Any

import pytest

from memoroids.envs.device.tasks import DEVICE, make_device
from memoroids.memory import REGISTRY
from memoroids.runs.preset_values import ASKING, PUBLISHED_SIZES, SEARCHED, SEARCHED_ALL
from memoroids.runs.presets import PRESETS, TASKS, preset
from memoroids.runs.settings import TrainConfig, options
from memoroids.runs.settings_file import from_json, to_json

COLUMNS = (
    "random_episodes",
    "train_episodes",
    "polyak",
    "batch_size",
    "updates_per_episode",
    "discount",
    "epsilon_end",
    "previous_action",
)
PUBLISHED: dict[str, tuple[Any, ...]] = {
    "RepeatFirstEasy": (5_000, 5_000, 0.995, 1_000, 1, 0.99, 0.01, False),
    "RepeatPreviousEasy": (5_000, 5_000, 0.995, 1_000, 1, 0.5, 0.1, False),
    "CountRecallEasy": (10_000, 10_000, 0.995, 1_000, 1, 0.99, 0.01, True),
    "PositionOnlyCartPoleEasy": (10_000, 10_000, 0.995, 4_000, 1, 0.99, 0.01, True),
    "VelocityOnlyCartpoleEasy": (10_000, 10_000, 0.995, 4_000, 1, 0.99, 0.01, True),
    "NoisyPositionOnlyCartPoleEasy": (10_000, 10_000, 0.995, 4_000, 1, 0.99, 0.01, True),
    "AutoencodeEasy": (10_000, 10_000, 0.995, 1_000, 4, 0.99, 0.01, True),
    "MultiarmedBanditEasy": (10_000, 10_000, 0.9975, 1_000, 1, 0.8, 0.01, True),
    "MineSweeperEasy": (10_000, 40_000, 0.9975, 1_000, 1, 0.99, 0.01, True),
}
SHARED = {
    "learning_rate": 1e-4,
    "warmup": 200,
    "max_grad_norm": 0.01,
    "epsilon_start": 0.2,
    "width": 256,
    "cut_batch": True,
    "eval_every": 10,
    "eval_episodes": 20,
}


def setting(config: TrainConfig, name: str) -> Any:
    return config.get(name) if name in options() else getattr(config.agent, name)


@pytest.mark.parametrize("memory", ["lru", "ffm"])
@pytest.mark.parametrize("task", PUBLISHED)
def test_the_papers_settings_are_those_that_it_published(task: str, memory: str):
    config = TrainConfig.of(**preset("paper", f"popgym-{task}-v0", memory))
    for name, value in zip(COLUMNS, PUBLISHED[task], strict=True):
        assert setting(config, name) == value, name
    for name, value in SHARED.items():
        assert setting(config, name) == value, name
    assert config.network.memory_sizes == PUBLISHED_SIZES[memory]


ASTEROIDS = {
    "width": 512,
    "random_episodes": 1_000,
    "train_episodes": 10_000,
    "updates_per_episode": 5,
    "batch_size": 16_000,
    "cut_batch": True,
    "segment_length": 80,
    "buffer_size": 50_000,
    "previous_action": False,
    "epsilon_start": 0.2,
    "epsilon_end": 0.01,
    "eval_every": 100,
    "eval_episodes": 10,
    "learning_rate": 1e-4,
    "warmup": 10,
    "max_grad_norm": 1.0,
    "polyak": 0.999,
    "discount": 0.99,
}


def test_the_settings_for_asteroids_are_those_that_were_published():
    # They need no emulator to be read: any environment may ask for them.
    config = TrainConfig.of(**preset("atari", "CartPole-v1", "lru"))
    assert {name: setting(config, name) for name in ASTEROIDS} == ASTEROIDS
    assert config.network.memory_sizes == PUBLISHED_SIZES["lru"] | {"state_size": 512}
    assert preset("atari", "CartPole-v1", "ffm")["memory_sizes"] == PUBLISHED_SIZES["ffm"]


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"default"}))
def test_ataris_games_have_the_published_settings_whichever_preset_is_named(name: str):
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    for game in ("Asteroids", "Pong"):
        assert preset(name, f"ALE/{game}-v5", "lru") == preset("atari", "CartPole-v1", "lru")


def test_there_are_presets_for_the_nine_tasks():
    assert set(TASKS) == set(PUBLISHED) and len(TASKS) == 9
    assert set(PRESETS) == {"tuned", "default", "paper", "atari"}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("memory", REGISTRY)
def test_every_preset_makes_settings_that_pass_their_own_checks(name: str, task: str, memory: str):
    values = preset(name, task, memory)
    config = TrainConfig.of(**values)
    assert set(values) <= set(options()) | {field.name for field in dataclasses.fields(config.agent)}
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize("task", TASKS)
def test_ours_takes_fewer_episodes_than_the_papers(task: str):
    tuned, paper = preset("tuned", task, "lru"), preset("paper", task, "lru")
    total = ("random_episodes", "train_episodes")
    assert sum(tuned[name] for name in total) < sum(paper[name] for name in total)


@pytest.mark.parametrize("name", PRESETS)
def test_short_names_and_ids_of_one_task_have_one_preset(name: str):
    assert preset(name, "minesweepereasy", "ffm") == preset(name, "popgym-MineSweeperEasy-v0", "ffm")


def test_other_environments_get_what_the_nine_share_and_are_asked_for_the_previous_action():
    values = preset("paper", "CartPole-v1", "lru")
    assert values["learning_rate"] == 1e-4 and values["random_episodes"] == 10_000
    assert values["previous_action"] is None
    assert preset("tuned", "CartPole-v1", "lru") == preset("default", "RepeatFirstEasy", "lru") == {}


@pytest.mark.parametrize("algorithm", ["ppo", "pqn", "dqn"])
def test_tuned_says_whether_actions_are_joined_as_they_were_in_the_search(algorithm: str):
    for task in DEVICE:
        asks = make_device(task).requires_previous_action
        assert task.startswith(ASKING) == asks
        for memory in REGISTRY:
            values = preset("tuned", task, memory, algorithm)
            own = SEARCHED.get(algorithm, {}).get((task, memory), {}).get("previous_action")
            if values and algorithm == "ppo" and own is None and "Cart" not in task:
                assert values["previous_action"] is asks
            assert not values or "previous_action" in values


@pytest.mark.parametrize("name", ["paper", "atari"])
@pytest.mark.parametrize("algorithm", ["ppo", "pqn"])
def test_agents_without_published_settings_are_refused_these(name: str, algorithm: str):
    with pytest.raises(ValueError, match=f"preset {name} has no settings for {algorithm}.*use tuned"):
        preset(name, "RepeatFirstEasy", "lru", algorithm)


def test_a_preset_handed_out_is_the_callers_to_change():
    for name in PRESETS:
        before = copy.deepcopy(preset(name, "RepeatFirstEasy", "lru"))
        changed = preset(name, "RepeatFirstEasy", "lru")
        changed["train_episodes"] = -1
        changed.get("memory_sizes", {})["state_size"] = -1
        assert preset(name, "RepeatFirstEasy", "lru") == before


@pytest.mark.parametrize("name", PRESETS)
def test_an_unknown_environment_has_no_preset(name: str):
    with pytest.raises(ValueError, match="did you mean popgym-RepeatFirstEasy-v0"):
        preset(name, "RepeatFristEasy", "lru")


def test_what_was_searched_for_changes_the_defaults_and_nothing_else():
    for (task, memory), searched in SEARCHED["ppo"].items():
        found = {"previous_action": task.startswith(ASKING)} | SEARCHED_ALL | searched
        assert preset("tuned", f"device:{task}", memory or "gru", "ppo") == found, (task, memory)
        on_host = {option: value for option, value in found.items() if option != "rollout"}
        assert preset("tuned", f"popgym-{task}-v0", memory or "gru", "ppo") == on_host
        assert preset("tuned", f"device:{task}", memory or "gru", "pqn") != found
    plain = preset("default", "device:HigherLowerEasy", "lru", "ppo")
    assert plain == {}
    # Another memory has what was known of the task before.
    assert preset("tuned", "device:AutoencodeEasy", "lru", "ppo")["discount"] == 0.5
