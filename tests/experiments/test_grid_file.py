"""Grids of the user's own: the cells that a file stands for, their names, and what is wrong with a file."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from fake_cell import write_run
from written_grids import only

from memoroids.experiments import report, results, runner
from memoroids.experiments.cell_process import cell_dir
from memoroids.experiments.grid_file import MAX_CELLS, GridFile, grid_cells, read_grid
from memoroids.experiments.reproduce import Execution, run_grid
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import to_json

EXAMPLE = Path(__file__).parents[2] / "examples" / "grid.toml"


def read(tmp_path: Path, text: str) -> GridFile:
    (tmp_path / "mine.toml").write_text(text)
    return read_grid(tmp_path / "mine.toml")


def test_a_grid_has_every_combination_that_is_not_excluded_seeds_outermost():
    grid = read_grid(EXAMPLE)
    found = grid_cells(grid)
    tasks = (("RepeatFirstEasy", 100_000), ("RepeatPreviousEasy", 200_000))
    expected = [
        (seed, memory, rate, task, steps)
        for seed, memory, rate, (task, steps) in itertools.product(range(3), ("lru", "gru"), (1e-3, 3e-4), tasks)
        if (memory, rate) != ("gru", 3e-4)
    ]
    of = [cell.config for cell in found]
    assert [
        (c.seed, c.network.memory, c.agent.learning_rate, c.env.id.removeprefix("device:"), c.budget.steps) for c in of
    ] == expected
    assert {c.collection.num_envs for c in of} == {32} and {c.algorithm for c in of} == {"ppo"}
    assert (grid.title, grid.seeds, grid.first_seed) == ("Memories and learning rates", 3, 0)


def test_cells_are_told_apart_by_what_differs_within_a_task_and_memory():
    found = {(cell.task, cell.memory, cell.batching) for cell in grid_cells(read_grid(EXAMPLE))}
    # What is zipped with the task is the same for all its cells, and so is the only learning rate of the GRU.
    for task in ("RepeatFirstEasy", "RepeatPreviousEasy"):
        labels = {label for name, memory, label in found if name == task and memory == "lru"}
        assert labels == {"learning_rate=0.001", "learning_rate=0.0003"}
        assert (task, "gru", "TBB") in found
    assert len(found) == 6


def test_the_settings_are_those_of_a_run_with_the_same_options(tmp_path: Path):
    grid = read(
        tmp_path,
        """
        seeds = 1
        first_seed = 7
        [settings]
        env = "RepeatFirstEasy"
        memory = "lru"
        memory_sizes = {state_size = 8}
        [axes]
        segment_length = [10, 20]
        batching = ["segments"]
        step_periods = [[4, 8], []]
        """,
    )
    found = grid_cells(grid)
    assert grid.title == "mine" and len(found) == 4
    alone = TrainConfig.of(
        preset="tuned",
        env="popgym-RepeatFirstEasy-v0",
        memory="lru",
        memory_sizes={"state_size": 8},
        batching="segments",
        segment_length=20,
        step_periods=(4, 8),
        seed=7,
    )
    cell = next(each for each in found if each.batching == "SBB L=20, step_periods=4 8")
    assert cell.config == alone and to_json(cell.config) == to_json(alone)
    assert [each.name for each in found if "L=20" in each.name and "4-8" in each.name] == [
        "RepeatFirstEasy-lru-SBB-L=20--step_periods=4-8-seed7"
    ]


def test_a_grid_runs_resumes_and_is_reported_as_that_of_a_figure(tmp_path: Path, faked: None):
    grid = read_grid(EXAMPLE)
    root = tmp_path / "place" / "grid"
    assert run_grid(grid, root, Execution(2, "memoroids grid", together=3))
    starts = (tmp_path / "place" / "starts").read_text().count("\n")
    assert starts == len(grid_cells(grid)) == 18
    assert run_grid(grid, root, Execution(2, "memoroids grid"))
    assert (tmp_path / "place" / "starts").read_text().count("\n") == starts
    page = (root / "report" / "index.html").read_text()
    assert "<h1>Memories and learning rates</h1>" in page and "18 of 18 runs done" in page
    assert "Morad" not in page.partition("<h2>")[0].partition("runs done")[0].rpartition("<p")[2]
    rows = results.load(root).groups()
    assert len(rows) == 6 and all(len(runs) == 3 for runs in rows.values())

    other = GridFile(**{**grid.__dict__, "seeds": 2})
    with pytest.raises(ValueError, match="holds another grid"):
        runner.prepare(root, other, grid_cells(other), "memoroids grid")


def test_the_tables_name_each_variant(tmp_path: Path):
    grid = read_grid(EXAMPLE)
    found = grid_cells(grid)
    runner.prepare(tmp_path, grid, found, "memoroids grid")
    for i, cell in enumerate(found):
        directory = cell_dir(tmp_path, cell)
        directory.mkdir(parents=True)
        (directory / "settings.json").write_text(to_json(cell.config) + "\n")
        write_run(directory, json.loads(to_json(cell.config)), [0.1, 0.01 * i], None)
    report.write(tmp_path)
    from memoroids.experiments import tables

    rows = tables.read(tmp_path / "report" / "tables" / "scores.csv")
    row = only(rows, task="RepeatFirstEasy", memory="lru", batching="learning_rate=0.0003")
    numbers = [i for i, c in enumerate(found) if (c.task, c.memory, c.batching) == tuple(row[k] for k in _KEYS)]
    assert row["last"] == pytest.approx(sum(0.01 * i for i in numbers) / 3)


_KEYS = ("task", "memory", "batching")
AXIS = "[axes]\nmemory = ['lru', 'gru']\n"
WRONG: dict[str, tuple[str, str]] = {
    "not TOML": ("[axes\n", r"mine.toml: .*line 1"),
    "unknown key": ("axis = 1", "unknown key 'axis'; did you mean axes?"),
    "unknown axis": ("[axes]\nlearning_rat = [1e-3]", "unknown setting 'learning_rat'; did you mean learning_rate?"),
    "unknown setting": ("[settings]\nenvs = 3", "unknown setting 'envs'"),
    "another agent's": (
        "[settings]\nalgorithm='ppo'\n[axes]\npolyak = [0.9]",
        "polyak is a setting of .*dqn.*, but the algorithm is ppo",
    ),
    "wrong type": ("[axes]\nlearning_rate = ['fast']", "learning_rate must be float, got 'fast' .*in the cell"),
    "wrong type of a setting": ("[settings]\nwidth = 1.5", "width must be int, got 1.5"),
    "out of range": ("[axes]\ndiscount = [0.9, 1.5]", "discount must be .*1.5.*in the cell discount 1.5"),
    "unknown memory": ("[axes]\nmemory = ['lru', 'grru']", "'grru'"),
    "unknown environment": ("[settings]\nenv = 'RepeatFristEasy'", "RepeatFristEasy.*did you mean"),
    "unknown preset": ("preset = 'tund'", "unknown preset 'tund'; did you mean tuned?"),
    "set twice": (f"[settings]\nmemory = 'lru'\n{AXIS}", r"memory is set by \[settings\] and by \[axes\]"),
    "two axes": (
        f"{AXIS}[[zip]]\nmemory = ['lru']\nwidth = [8]",
        r"memory is set by \[axes\] and by zip table 1: set it in one place",
    ),
    "two zips": ("[[zip]]\nwidth = [8]\n[[zip]]\nwidth = [16]", "width is set by zip table 1 and by zip table 2"),
    "lengths": ("[[zip]]\nwidth = [8, 16]\nmemory = ['lru']", "one length: width has 2, memory has 1"),
    "no list": ("[axes]\nwidth = 8", r"\[axes\]: width must be a list of one value or more, got 8"),
    "empty": ("[axes]\nwidth = []", r"width must be a list of one value or more, got \[\]"),
    "value twice": ("[axes]\nwidth = [8, 16, 8]", "width has a value twice"),
    "seed as an axis": ("[axes]\nseed = [0, 1]", r"\[axes\] sets seed: count seeds with `seeds = 3`"),
    "run_dir": ("[settings]\nrun_dir = 'here'", "every run has a directory of its own"),
    "no seeds": ("seeds = 0", "seeds must be at least 1"),
    "seeds of another type": ("seeds = true", "seeds must be a whole number, got True"),
    "zip is a table": ("[zip]\nwidth = [8]", r"zip must be a list of tables"),
    "zip holds numbers": ("zip = [1]", r"zip must be written as tables, \[\[zip\]\]"),
    "nothing excluded": (f"{AXIS}[[exclude]]\nmemory = 'mlp'", "exclude table 1 leaves out nothing"),
    "exclude of no axis": (f"{AXIS}[[exclude]]\nwidth = 8", "exclude table 1 names width, which no axis or setting"),
    "all excluded": (f"{AXIS}[[exclude]]\nmemory = 'lru'\n[[exclude]]\nmemory = 'gru'", "every cell is excluded"),
    "a million": (
        "seeds = 1\n[axes]\n" + "\n".join(f"{name} = {list(range(1, 101))}" for name in ("width", "steps", "rollout")),
        rf"1,000,000 runs \(100 × 100 × 100 and 1 seeds\), more than {MAX_CELLS:,}",
    ),
    "the same run twice": (
        "[[zip]]\nwidth = [8, 8]\nsteps = [10, 10]",
        "width 8, steps 10 are the same run: exclude one",
    ),
    "preset as a setting": ("[settings]\npreset = 'paper'", r"\[settings\] sets preset: name it outside the tables"),
    "an algorithm of another type": ("[settings]\nalgorithm = 3", "algorithm must be text, got 3"),
    "an empty zip": ("[[zip]]", "zip table 1 is empty"),
    "an empty exclude": (f"{AXIS}[[exclude]]", "exclude table 1 is empty"),
    "a scale that is no table": ("[scale]\nsmoke = 3", "scale smoke: must be a table, got 3"),
    "a scale of that name": ("[scale.priority]\nseed = 3", "scale priority: unknown key 'seed'; did you mean seeds?"),
    "an unknown key of a scale": ("[scale.smoke]\nseed = 3", "scale smoke: unknown key 'seed'; did you mean seeds?"),
    "a wrong scale": ("[settings]\nwidth = 8\n[scale.smoke.axes]\nwidth = [4]", "scale smoke: width is set by"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_file_is_said_in_one_line(name: str, tmp_path: Path):
    text, says = WRONG[name]
    with pytest.raises(ValueError, match=says) as error:
        grid_cells(read(tmp_path, text))
    assert "\n" not in str(error.value)


def test_settings_of_priorities_have_their_name_and_a_dot(tmp_path: Path):
    head = "seeds = 1\n[settings]\nenv = 'device:RepeatFirstEasy'\nprioritised = true\npriority.floor = 0.01\n"
    found = grid_cells(read(tmp_path, head + "[axes]\npriority.mix = [0.5, 0.9]"))
    priority = [cell.config.priority for cell in found]
    assert [(each.mix, each.floor, each.exponent) for each in priority] == [(0.5, 0.01, 0.6), (0.9, 0.01, 0.6)]
    assert [cell.batching for cell in found] == ["priority.mix=0.5", "priority.mix=0.9"]
    for wrong, says in (
        ("priority.mixed = [1.0]", "unknown setting 'priority.mixed'; did you mean priority.mix?"),
        ("priority.mix = ['all']", "priority.mix must be float, got 'all'"),
        ("priority = [1]", "unknown setting 'priority'|priority must be"),
        ("'priority.mix' = [0.3]\npriority.mix = [0.7]", "priority.mix is set twice"),
    ):
        with pytest.raises(ValueError, match=says):
            grid_cells(read(tmp_path, head + "[axes]\n" + wrong))


SCALES = """
seeds = 2
[settings]
width = 8
steps = 9_000
[axes]
memory = ["lru", "gru"]
[scale.smoke]
seeds = 1
settings = {steps = 100}
[scale.full]
preset = "default"
axes = {memory = ["mlp"]}
"""


def test_a_scale_replaces_what_it_names_and_nothing_else(tmp_path: Path):
    read(tmp_path, SCALES)
    plain, smoke, full = (read_grid(tmp_path / "mine.toml", scale) for scale in (None, "smoke", "full"))
    assert (plain.scale, smoke.scale, full.scale) == ("", "smoke", "full")
    assert (smoke.seeds, smoke.settings, smoke.axes, smoke.preset) == (1, {"steps": 100}, plain.axes, plain.preset)
    assert (full.seeds, full.settings, full.axes, full.preset) == (2, plain.settings, {"memory": ["mlp"]}, "default")
    assert len(grid_cells(plain)) == 4 and len(grid_cells(smoke)) == 2
    with pytest.raises(ValueError, match=r"mine.toml: there is no scale 'tiny': it has smoke, full"):
        read_grid(tmp_path / "mine.toml", "tiny")
    with pytest.raises(ValueError, match=r"there is no scale 'smoke': it has none"):
        read_grid(EXAMPLE, "smoke")


def test_environments_with_other_options_are_other_tasks(tmp_path: Path):
    text = (
        "seeds = 1\n[settings]\nenv = 'RepeatPreviousEasy'\n[axes]\nenv_options = [{k = 4}, {k = 6}]\nwidth = [8, 16]"
    )
    found = grid_cells(read(tmp_path, text))
    assert [(cell.task, cell.batching) for cell in found] == [
        (f"RepeatPreviousEasy-k{k}", f"width={width}") for k in (4, 6) for width in (8, 16)
    ]


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"none.toml cannot be read: No such file"):
        read_grid(tmp_path / "none.toml")
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"mine.toml: .*decode"):
        read_grid(tmp_path / "mine.toml")


def test_settings_may_come_from_a_value_of_any_kind(tmp_path: Path):
    grid: Any = read(tmp_path, "seeds = 1\n[axes]\nmemory_sizes = [{state_size = 8}, {state_size = 16}]")
    assert [cell.batching for cell in grid_cells(grid)] == [
        "memory_sizes=state_size 8",
        "memory_sizes=state_size 16",
    ]
