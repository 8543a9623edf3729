"""`memoroids train`: its settings come from the preset and the command line, its code from where it is run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from noisy_toy import ENV, TINY, Toy

from memoroids.cli.main import main
from memoroids.runs import metrics, presets
from memoroids.runs.preset_values import PUBLISHED_SIZES
from memoroids.runs.seeds import TRAIN, environment_seeds
from memoroids.runs.settings import TrainConfig

pytestmark = pytest.mark.usefixtures("workplace")


def settings_of(asked: list[tuple[TrainConfig, Path, bool]], *argv: str) -> TrainConfig:
    main(["train", *argv])
    return dataclasses.replace(asked[-1][0], run_dir=None)


def test_the_bare_command_trains_an_lru_on_repeat_previous_with_our_preset(asked: Any):
    tuned = presets.preset("tuned", "RepeatPreviousEasy", "lru")
    assert settings_of(asked) == TrainConfig.of(**tuned)
    assert (asked[0][0].env.id, asked[0][0].network.memory) == ("popgym-RepeatPreviousEasy-v0", "lru")
    assert asked[0][2] is False


@pytest.mark.parametrize("spelling", ["--env {} --memory {} --preset {}", "--preset={2} --env={0} --memory={1}"])
@pytest.mark.parametrize("env", ["MineSweeperEasy", "popgym-RepeatFirstEasy-v0", "CartPole-v1"])
@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_is_that_of_the_environment_and_memory_asked_for(spelling: str, env: str, name: str, asked: Any):
    settings = settings_of(asked, *spelling.format(env, "ffm", name).split())
    assert env in settings.env.id
    values = presets.preset(name, env, "ffm")
    assert settings == TrainConfig.of(env=settings.env.id, memory="ffm", **values)
    assert settings == TrainConfig.of(env=settings.env.id, memory="ffm", preset=name)


def test_the_papers_settings_reach_the_run(asked: Any):
    settings = settings_of(asked, "--env=MineSweeperEasy", "--preset", "paper")
    assert (settings.budget.train_episodes, settings.agent.polyak, settings.replay.cut_batch) == (40_000, 0.9975, True)


def test_a_preset_may_depend_on_the_memory(asked: Any, monkeypatch: pytest.MonkeyPatch):
    def preset(name: str, env: str, memory: str, algorithm: str) -> dict[str, Any]:
        return {"memory_sizes": {"layers": 1}, "warmup": 7} if memory == "s5" else {"warmup": 9}

    monkeypatch.setattr(presets, "preset", preset)
    with_sizes, without = settings_of(asked, "--memory", "s5"), settings_of(asked, "--memory", "gru")
    assert (with_sizes.network.memory_sizes, with_sizes.agent.warmup) == ({"layers": 1}, 7)
    assert (without.network.memory_sizes, without.agent.warmup) == ({}, 9)


def test_what_is_said_on_the_command_line_wins_over_the_preset(asked: Any):
    said = (
        "--train-episodes",
        "7",
        "--polyak=0.5",
        "--no-cut-batch",
        "--previous-action",
        "None",
        "--max-grad-norm",
        "1",
    )
    settings = settings_of(asked, "--preset", "paper", "--env", "MineSweeperEasy", *said)
    assert (settings.budget.train_episodes, settings.agent.polyak, settings.replay.cut_batch) == (7, 0.5, False)
    assert settings.env.previous_action is None and settings.agent.max_grad_norm == 1.0
    assert (settings.budget.random_episodes, settings.agent.learning_rate) == (10_000, 1e-4)


@pytest.mark.parametrize("algorithm", ["ppo", "pqn"])
@pytest.mark.parametrize("env", ["RepeatFirstEasy", "device:RepeatFirstEasy", "device:repeatfirsteasy"])
def test_algorithms_without_replay_have_presets_of_their_own(algorithm: str, env: str, asked: Any):
    settings = settings_of(asked, "--env", env, "--algorithm", algorithm, f"--{algorithm}.epochs", "2")
    assert settings.algorithm == algorithm and settings.budget.random_episodes == 0
    learner = settings.agent
    assert learner.epochs == 2 and learner.discount == 0.5
    assert settings.budget.steps == 400_000 and (settings.collection.rollout is None)
    if settings.env.on_device:
        assert settings.env.id == "device:RepeatFirstEasy"


def test_sizes_of_the_memory_are_named_one_by_one(asked: Any):
    settings = settings_of(asked, "--memory-sizes", "layers", "1", "r_min", "0.9", "--seed", "3")
    assert settings.network.memory_sizes == PUBLISHED_SIZES["lru"] | {"layers": 1, "r_min": 0.9} and settings.seed == 3


@pytest.mark.parametrize("option", ["--env-options", "--memory-sizes"])
def test_keyword_arguments_are_given_as_literals_of_their_types(option: str, asked: Any):
    words = "is_slippery false desc null rate 1e-3 sizes [3,true] map {'a':None} name 4x4 text '3' low -1 big True"
    name = option[2:].replace("-", "_")
    settings = settings_of(asked, "--memory", "mlp", option, *words.split(), "--seed", "3")
    expected = {"is_slippery": False, "desc": None, "rate": 1e-3, "sizes": [3, True], "map": {"a": None}}
    expected |= {"name": "4x4", "text": "3", "low": -1, "big": True}
    assert settings.seed == 3 and [(n, type(v), v) for n, v in settings.get(name).items()] == [
        (n, type(v), v) for n, v in expected.items()
    ]


def test_the_types_of_keyword_arguments_are_shown_and_reach_the_environment(ran: Callable[..., str], workplace: Path):
    (workplace / "workplace_typed.py").write_text(
        "import gymnasium as gym\nfrom noisy_toy import Toy\n"
        "def make(is_slippery, desc, size):\n"
        "    assert (is_slippery, desc, size) == (False, None, [3, 'a']), (is_slippery, desc, size)\n"
        "    return Toy()\n"
        "gym.register('workplace/Typed-v0', entry_point=make)\n"
    )
    options = ("--env-options", "is_slippery", "false", "desc", "null", "size", '[3, "a"]')
    env = ("--env", "workplace_typed:workplace/Typed-v0", "--memory", "lru", "--run-dir", "run")
    said = ran("train", *env, *options, "--memory-sizes", "layers", "1", "state_size", "4", *TINY)
    assert "env_options: is_slippery=False, desc=None, size=[3, 'a'] memory_sizes: layers=1, state_size=4 " in said
    assert "3 greedy episodes" in ran("evaluate", "run", "--episodes", "3", "--trust")


def test_a_run_is_written_under_runs_or_where_it_is_told(asked: Any, workplace: Path):
    (workplace / "runs" / "RepeatPreviousEasy-lru-seed0-1").mkdir(parents=True)
    main(["train"])
    main(["train", "--run-dir", "else/where"])
    assert [str(call[1]) for call in asked] == ["runs/RepeatPreviousEasy-lru-seed0-2", "else/where"]


def test_a_memory_of_the_users_own_is_trained_from_where_the_command_is_run(ran: Callable[..., str], workplace: Path):
    (workplace / "workplace_package").mkdir()
    (workplace / "workplace_package" / "__init__.py").touch()
    (workplace / "workplace_package" / "models.py").write_text(
        "from memoroids.memory import MLP\n"
        "def build(input_size, output_size, *, key, scale=1):\n"
        "    assert scale == 3\n"
        "    return MLP(input_size, output_size, key=key)\n"
    )
    memory = "workplace_package.models:build"
    assert "finished" in ran("train", "--env", ENV, "--memory", memory, "--memory-sizes", "scale", "3", *TINY)
    (run,) = (workplace / "runs").iterdir()
    assert "3 greedy episodes" in ran("evaluate", str(run), "--episodes", "3", "--trust")


def test_an_environment_of_the_users_own_is_trained_from_where_the_command_is_run(
    ran: Callable[..., str], workplace: Path
):
    (workplace / "workplace_env.py").write_text(
        "import gymnasium as gym\nfrom noisy_toy import Toy\ngym.register('workplace/Toy-v0', entry_point=Toy)\n"
    )
    assert "finished" in ran("train", "--env", "workplace_env:workplace/Toy-v0", "--memory", "mlp", *TINY)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("def f(:\n", "workplace_bad"),
        ("raise RuntimeError('first\\nsecond')\n", "first second"),
        (
            "import gymnasium as gym\n"
            "def make():\n"
            "    raise OSError('no\\ndisplay')\n"
            "gym.register('workplace/Thing-v0', entry_point=make)\n",
            "no display",
        ),
    ],
    ids=["syntax", "raises at import", "raises when made"],
)
def test_an_environment_of_the_users_own_that_cannot_be_made_is_answered_in_one_line(
    text: str, word: str, refused: Callable[..., str], workplace: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(workplace))
    (workplace / "workplace_bad.py").write_text(text)
    said = refused("train", "--env", "workplace_bad:workplace/Thing-v0", "--memory", "mlp", *TINY)
    assert word in said
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize("kind", ["raises", "nan"])
def test_an_environment_that_fails_in_mid_run_is_named_with_episode_and_step_and_nothing_is_lost(
    kind: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, workplace: Path
):
    when = environment_seeds(0, TRAIN)(3)

    def third_step(seed: int | None, noise: np.ndarray) -> np.ndarray:
        if seed == when and kind == "raises":
            raise RuntimeError("the server\nis gone")
        return noise * np.nan if seed == when else noise

    monkeypatch.setattr(Toy, "third_step", staticmethod(third_step))
    argv = ("train", "--env", ENV, "--memory", "mlp", "--run-dir", "run", "--checkpoint-every", "3", *TINY)
    said = refused(*argv, "--max-faults", "0", code=1)
    assert "episode 3" in said and "step 3" in said and ENV in said
    assert ("the server is gone" if kind == "raises" else "nan") in said
    assert [row["episode"] for row in metrics.read(workplace / "run" / "metrics.csv")] == [2]
    assert [path.name for path in (workplace / "run" / "checkpoints").iterdir()] == ["000000006.0001"]


def test_a_run_directory_that_cannot_be_one_is_named(refused: Callable[..., str], workplace: Path):
    (workplace / "taken").write_text("a file")
    for run_dir in ("taken", "taken/inside"):
        assert "taken" in refused("train", "--env", ENV, "--memory", "mlp", "--run-dir", run_dir, *TINY)
    assert (workplace / "taken").read_text() == "a file"


def test_a_directory_with_other_things_in_it_may_hold_a_run_too(ran: Callable[..., str], workplace: Path):
    (workplace / "run").mkdir()
    (workplace / "run" / "notes.txt").write_text("mine")
    ran("train", "--env", ENV, "--memory", "mlp", "--run-dir", "run", *TINY)
    assert (workplace / "run" / "notes.txt").read_text() == "mine"
