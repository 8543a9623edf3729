"""The paper's figures as grids of runs: their runs, the settings of these, and the user's choices."""

import dataclasses
import importlib.util
import typing
from typing import Any

import pytest

from memoroids.experiments.figure_grids import FILES, PUBLISHED, Choice, Scale, cells, figure_grid
from memoroids.experiments.grid import Cell
from memoroids.experiments.grid_file import grid_cells, read_grid
from memoroids.experiments.popgym import FAMILIES, LEVELS
from memoroids.memory import REGISTRY
from memoroids.runs.presets import MEMORIES, SEGMENT_LENGTHS, TASKS, preset
from memoroids.runs.settings import TrainConfig, flat
from memoroids.runs.settings_file import from_json, to_json

SCALES = typing.get_args(Scale)
POPGYM = [name for name in FILES if name in PUBLISHED and name != "figure7"]
NUMBERS = {"figure3": (4, (10,)), "figure4": (4, SEGMENT_LENGTHS), "figure5-training": (1, SEGMENT_LENGTHS)}
NUMBERS |= {"figure6": (36, SEGMENT_LENGTHS), "figure7": (3, (80,)), "figure8": (4, (10,))}
"""Pairs of task and memory, and segment lengths."""
ATARI = pytest.param(
    "figure7",
    marks=pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("ale_py", "cv2")), reason="needs the extra atari"
    ),
)
BATCHING = {"batching", "segment_length", "segment_state", "segment_count"}


def changed(a: TrainConfig, b: TrainConfig) -> set[str]:
    """The settings in which two runs differ, by the names of options."""
    mine, others = (flat(dataclasses.asdict(one)) for one in (a, b))
    return {name for name in mine if mine[name] != others[name]}


def by(found: list[Cell], *names: str) -> dict[Any, list[Cell]]:
    """Cells in groups with equal values of some of their fields."""
    groups: dict[Any, list[Cell]] = {}
    for cell in found:
        groups.setdefault(tuple(getattr(cell, name) for name in names), []).append(cell)
    return groups


def pairs(found: list[Cell]) -> list[tuple[str, str]]:
    return list(by(found, "task", "memory"))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("figure", [*POPGYM, ATARI])
def test_every_figure_is_a_grid_of_runs_of_its_own_that_can_be_made(figure: str, scale: Scale):
    found = cells(Choice(figure, scale))
    assert len({cell.name for cell in found}) == len(found)
    assert len({to_json(cell.config) for cell in found}) == len(found)
    seeds = {"smoke": 2, "laptop": 3, "paper": 10}[scale]
    assert list(by(found, "seed")) == [(seed,) for seed in range(seeds)]
    assert [cell.seed for cell in found] == sorted(cell.seed for cell in found)
    for cell in found:
        assert cell.name.replace("-", "").replace("_", "").replace("=", "").isalnum()
        assert from_json(to_json(cell.config)) == cell.config
        assert (cell.config.seed, cell.config.network.memory, cell.config.run_dir) == (cell.seed, cell.memory, None)
    shapes = [[(c.task, c.memory, c.batching) for c in group] for group in by(found, "seed").values()]
    assert all(shape == shapes[0] for shape in shapes)
    if scale != "smoke":
        number, lengths = NUMBERS[figure]
        assert len(found) == seeds * number * (1 + len(lengths))
        assert {cell.config.replay.segment_length for cell in found if cell.batching != "TBB"} == set(lengths)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("figure", [*POPGYM, ATARI])
def test_tapes_and_segments_of_one_seed_differ_in_nothing_but_batching(figure: str, scale: Scale):
    for group in by(cells(Choice(figure, scale, segment_state="stored", seeds=2)), "task", "memory", "seed").values():
        tape, *segments = group
        assert tape.batching == "TBB"
        assert (tape.config.replay.batching, tape.config.replay.segment_state, tape.config.replay.segment_count) == (
            "tape",
            "zero",
            "slots",
        )
        assert segments
        for cell in segments:
            assert cell.batching == f"SBB L={cell.config.replay.segment_length} stored"
            assert (cell.config.replay.batching, cell.config.replay.segment_state) == ("segments", "stored")
            assert {"batching", "segment_state"} <= changed(tape.config, cell.config) <= BATCHING


@pytest.mark.parametrize("figure", POPGYM)
def test_at_the_papers_scale_every_setting_is_the_papers(figure: str):
    for cell in cells(Choice(figure, "paper", seeds=1)):
        published = TrainConfig.of(**preset("paper", cell.config.env.id, cell.memory))
        allowed = {"env", "memory", "env_options", "sensitivity_every"} | BATCHING
        assert changed(published, cell.config) <= allowed


def test_the_laptops_settings_are_the_tuned_ones_and_a_smoke_runs_in_moments():
    for cell in cells(Choice("figure6", "laptop", seeds=1)):
        tuned = TrainConfig.of(**preset("tuned", cell.config.env.id, cell.memory))
        assert changed(tuned, cell.config) <= {"env", "memory"} | BATCHING
    for cell in cells(Choice("figure6", "smoke")):
        assert (
            cell.config.budget.random_episodes,
            cell.config.budget.train_episodes,
            cell.config.replay.batch_size,
        ) == (20, 30, 500)
    assert len(cells(Choice("figure6", "smoke"))) < len(cells(Choice("figure6", "laptop"))) / 10


def test_figure_4_is_the_papers_four_pairs_and_four_lengths():
    found = cells(Choice("figure4", "paper"))
    assert pairs(found) == [
        ("CountRecallEasy", "s5"),
        ("PositionOnlyCartPoleEasy", "linear_transformer"),
        ("RepeatFirstEasy", "lru"),
        ("RepeatPreviousEasy", "ffm"),
    ]
    assert {cell.config.env.id for cell in found} == {f"popgym-{task}-v0" for task, _ in pairs(found)}
    labels = ["TBB", "SBB L=10", "SBB L=20", "SBB L=50", "SBB L=100"]
    for group in by(found, "task", "seed").values():
        assert [cell.batching for cell in group] == labels
    assert all(cell.config.env.options == {} and cell.config.evaluation.sensitivity_every == 0 for cell in found)
    assert len(found) == 4 * 5 * 10


def test_figure_6_is_every_task_with_every_memory():
    found = cells(Choice("figure6", "paper", seeds=1))
    assert set(pairs(found)) == {(task, memory) for task in TASKS for memory in MEMORIES}
    assert len(found) == 9 * 4 * 5
    assert set(MEMORIES) == {"lru", "ffm", "s5", "linear_transformer"}


@pytest.mark.parametrize("figure", [ATARI])
def test_figure_7_is_three_games_with_segments_of_80(figure: str):
    for scale in ("laptop", "paper"):
        found = cells(Choice(figure, scale))
        assert pairs(found) == [
            ("ALE/Asteroids-v5", "lru"),
            ("ALE/Pong-v5", "ffm"),
            ("ALE/Frostbite-v5", "linear_transformer"),
        ]
        assert [cell.batching for cell in found[:2]] == ["TBB", "SBB L=80"]
        published = TrainConfig.of(**preset("atari", "ALE/Asteroids-v5", "lru"))
        cut = set()
        if scale == "laptop":
            cut = {"random_episodes", "train_episodes", "eval_every", "batch_size", "width", "updates_per_episode"}
            cut |= {"memory_sizes"}
        assert changed(published, found[0].config) == {"env"} | cut
        assert changed(published, found[1].config) == {"env", "batching"} | cut
        assert published.replay.segment_length == 80


@pytest.mark.parametrize(
    ("figure", "env", "options"),
    [
        ("figure3", "popgym-RepeatPreviousEasy-v0", {"k": 10, "num_decks": 2}),
        ("figure8", "popgym-RepeatFirstEasy-v0", {}),
    ],
)
def test_figures_3_and_8_record_sensitivity_during_training(figure: str, env: str, options: dict[str, Any]):
    for scale in SCALES:
        found = cells(Choice(figure, scale))
        assert {cell.config.env.id for cell in found} == {env}
        assert all(cell.config.env.options == options for cell in found)
        assert {cell.memory for cell in found} == set(MEMORIES)
        assert {cell.batching for cell in found} == {"TBB", "SBB L=10"}
        for cell in found:
            every = cell.config.evaluation.sensitivity_every
            assert every > 0 and every % cell.config.evaluation.eval_every == 0
            assert cell.config.budget.train_episodes / every <= 40
    assert all(cell.config.evaluation.sensitivity_every == 0 for cell in cells(Choice("figure5-training")))


def test_what_is_asked_for_is_run_instead_of_the_figures_own():
    asked = Choice(
        "figure4",
        tasks=("MineSweeperEasy", "popgym-RepeatFirstEasy-v0"),
        memories=("gru", "mlp"),
        segment_lengths=(7, 3),
        segment_count="transitions",
        seeds=2,
        random_episodes=0,
        train_episodes=12,
    )
    found = cells(asked)
    expected = [(task, memory) for task in ("MineSweeperEasy", "RepeatFirstEasy") for memory in ("gru", "mlp")]
    assert pairs(found) == expected
    assert list(by(found, "batching")) == [("TBB",), ("SBB L=7",), ("SBB L=3",)]
    assert len(found) == 4 * 3 * 2
    for cell in found:
        assert (cell.config.budget.random_episodes, cell.config.budget.train_episodes) == (0, 12)
        assert cell.config.replay.segment_count == ("slots" if cell.batching == "TBB" else "transitions")
    smoke = cells(dataclasses.replace(asked, scale="smoke", random_episodes=None))
    assert pairs(smoke) == expected
    assert {(c.config.budget.random_episodes, c.config.budget.train_episodes) for c in smoke} == {(20, 12)}


def test_tasks_alone_get_every_memory_of_the_figure_and_memories_alone_every_task():
    own = pairs(cells(Choice("figure4")))
    four = {memory for _, memory in own}
    assert set(pairs(cells(Choice("figure4", tasks=("AutoencodeEasy",))))) == {("AutoencodeEasy", m) for m in four}
    tasks = {task for task, _ in own}
    assert set(pairs(cells(Choice("figure4", memories=("gru",))))) == {(task, "gru") for task in tasks}
    assert {c.batching for c in cells(Choice("figure4", segment_lengths=()))} == {"TBB"}


@pytest.mark.parametrize("name", FILES)
def test_the_file_of_a_figure_is_a_grid_like_the_users_own(name: str):
    if name == "figure7" and importlib.util.find_spec("ale_py") is None:
        pytest.skip("needs the extra atari")
    for scale in (None, "smoke", "paper"):
        own = grid_cells(read_grid(FILES[name], scale))
        found = cells(Choice(name, scale or "laptop"))
        names = "seed", "task", "memory"
        assert [[getattr(c, n) for n in names] for c in own] == [[getattr(c, n) for n in names] for c in found]
        for mine, theirs in zip(own, found, strict=True):
            assert mine.config == theirs.config


def test_popgyms_file_has_every_task_once():
    grid = figure_grid("popgym")
    envs = grid.zip[0]["env"]
    assert sorted(envs) == sorted(f"device:{family}{level}" for family in FAMILIES for level in LEVELS)


@pytest.mark.parametrize("figure", [ATARI])
def test_a_memory_that_is_named_has_the_sizes_that_it_has_in_the_figure(figure: str):
    def sizes(**asked: Any) -> dict[str, Any]:
        found = cells(Choice(figure, seeds=1, segment_lengths=(), **asked))
        return next(cell.config.network.memory_sizes for cell in found if cell.memory == "lru")

    assert sizes() == sizes(memories=("lru",)) == sizes(tasks=("ALE/Pong-v5",), memories=("lru",))


@pytest.mark.parametrize(("episodes", "every"), [(20, 10), (40_000, 2_000), (400, 20)])
def test_a_budget_of_the_users_own_has_about_as_many_profiles(episodes: int, every: int):
    found = cells(Choice("figure8", train_episodes=episodes, seeds=1))
    assert {cell.config.evaluation.sensitivity_every for cell in found} == {every}


@pytest.mark.parametrize("name", ["RepeatPreviousEasy", "popgym-RepeatPreviousEasy-v0", "repeatpreviouseasy"])
def test_a_task_is_the_environment_that_is_named_however_it_is_spelt(name: str):
    for cell in cells(Choice("figure3", tasks=(name,), memories=("lru",), seeds=1)):
        assert (cell.task, cell.config.env.options) == ("RepeatPreviousEasy", {})


def test_the_variant_of_figure_3_goes_by_its_own_name():
    for choice in (
        Choice("figure3", seeds=1),
        Choice("figure4", tasks=("RepeatPreviousEasy-k10-num_decks2",), seeds=1),
    ):
        for cell in cells(choice):
            assert (cell.task, cell.config.env.options) == (
                "RepeatPreviousEasy-k10-num_decks2",
                {"k": 10, "num_decks": 2},
            )


def test_an_ablation_adds_every_batching_again_with_exactly_one_setting_changed():
    choice = Choice("figure5-training", segment_lengths=(10, 20), seeds=2)
    plain = cells(choice)
    found = cells(dataclasses.replace(choice, ablations=("next-state", "loss")))
    assert len(found) == 3 * len(plain)
    known = {cell.name: cell for cell in found}
    assert all(known[cell.name] == cell for cell in plain)
    names = {"next-state": ("(next state recomputed)", "next_state", "recomputed")}
    names["loss"] = ("(Huber of mean)", "loss", "huber-of-mean")
    for label, setting, value in names.values():
        ablated = [cell for cell in found if label in cell.batching]
        assert len(ablated) == len(plain)
        for cell, base in zip(ablated, plain, strict=True):
            assert cell.batching == f"{base.batching} {label}"
            assert changed(base.config, cell.config) == {setting}
            assert getattr(cell.config.agent, setting) == value


def test_a_memory_of_the_users_own_may_stand_in_a_grid():
    (cell,) = cells(
        Choice("figure4", tasks=("RepeatFirstEasy",), memories=("memoroids.memory:MLP",), segment_lengths=(), seeds=1)
    )
    assert (cell.memory, cell.name) == ("memoroids.memory:MLP", "RepeatFirstEasy-memoroids.memory-MLP-TBB-seed0")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"tasks": ("RepeatFristEasy",)}, ["'RepeatFristEasy'", "did you mean popgym-RepeatFirstEasy-v0"]),
        ({"memories": ("lruu",)}, ["'lruu'", "did you mean lru?"]),
        ({"tasks": ("RepeatFirstEasy",), "memories": ("no_such_module:build",)}, ["no_such_module"]),
        ({"tasks": ("RepeatFirstEasy", "popgym-RepeatFirstEasy-v0")}, ["twice"]),
        ({"memories": ("lru", "lru")}, ["twice"]),
        ({"segment_lengths": (10, 10)}, ["twice"]),
        ({"ablations": ("loss", "loss")}, ["twice"]),
        ({"segment_lengths": (0,)}, ["segment_length", "at least 1"]),
        ({"train_episodes": 0}, ["train_episodes", "at least 1"]),
        ({"seeds": 0}, ["seeds", "at least 1"]),
        ({"tasks": ("ALE/Pong-v5",)}, ["figure4 do not fit ALE/Pong-v5", "use figure7 --tasks ALE/Pong-v5"]),
    ],
    ids=str,
)
def test_what_cannot_be_a_grid_is_refused_in_one_line(asked: dict[str, Any], words: list[str]):
    with pytest.raises(ValueError) as error:
        cells(Choice("figure4", **asked))
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_every_memory_is_compared_at_one_size_with_ppos_defaults():
    found = cells(Choice("memories"))
    tasks = "RepeatFirstEasy", "RepeatPreviousEasy"
    assert sorted(pairs(found)) == sorted((task, memory) for task in tasks for memory in REGISTRY)
    plain = TrainConfig.of(preset="default", algorithm="ppo")
    for cell in found:
        assert cell.config.network.parameters == 100_000 and cell.config.env.previous_action is False
        assert vars(cell.config.agent)["advantage_window"] == 20_000
        pinned = {"previous_action", "advantage_window"}
        assert changed(plain, cell.config) <= {"env", "memory", "seed", "parameters"} | pinned
    assert all(cell.config.network.parameters is None for cell in cells(Choice("memories", "smoke")))


@pytest.mark.parametrize("scale", SCALES)
def test_popgyms_tasks_are_run_on_device_without_replay(scale: Scale):
    found = cells(Choice("popgym", scale))
    assert all(cell.config.algorithm == "ppo" and cell.config.env.on_device for cell in found)
    assert all(cell.batching == "TBB" and not cell.task.startswith("device") for cell in found)
    if scale != "smoke":
        tasks = {cell.task for cell in found}
        assert len(tasks) == 48 and {"RepeatFirstEasy", "VelocityOnlyCartpoleHard", "MineSweeperMedium"} <= tasks
    assert all(cell.config.budget.steps == 777 for cell in cells(Choice("popgym", scale, steps=777)))
    (own,) = cells(Choice("popgym", scale, tasks=("AutoencodeHard",), seeds=1))
    assert own.memory == "gated_delta_net"
    assert [cell.memory for cell in cells(Choice("popgym", scale, tasks=("ObservedAutoencodeHard",), seeds=1))] == [
        "lru"
    ]
    (one, *_) = cells(Choice("popgym", scale, tasks=("repeatpreviousHard",), memories=("ffm",), seeds=1))
    assert one.task == "RepeatPreviousHard" and one.config.env.id == "device:RepeatPreviousHard"
