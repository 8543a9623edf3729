"""The comparison with published scores: by the mean over runs of the highest training return."""

import json
from pathlib import Path

import pytest
from fake_cell import finish, write_metrics
from written_grids import make, only, written

from memoroids.experiments import results, scoreboard, tables
from memoroids.experiments.figure_grids import Choice
from memoroids.experiments.grid import Cell
from memoroids.runs.settings_file import to_json

CHOICE = Choice("popgym", tasks=("RepeatPreviousMedium", "MineSweeperEasy"), memories=("lru", "gru"), seeds=2)
MMER = {("RepeatPreviousMedium", "lru"): (0.9, 0.7), ("RepeatPreviousMedium", "gru"): (0.5, 0.3)}


def write(cell: Cell, directory: Path) -> None:
    """A run whose training returns rise to a peak and fall again."""
    directory.mkdir(parents=True)
    (directory / "settings.json").write_text(to_json(cell.config) + "\n")
    peak = MMER.get((cell.task, cell.memory), (0.1, 0.2))[cell.seed]
    settings = json.loads(to_json(cell.config))
    write_metrics(directory / "run", settings, [0.0, 0.1, 0.2], train_returns=[-1.0, peak, peak - 0.5], steps=70_000)
    summary = {"final_return": 0.5, "final_return_sampled": 0.5, "target_return": None}
    summary |= {"final_return_greedy": 0.25 + cell.seed} if cell.memory == "lru" else {}
    (directory / "run" / "summary.json").write_text(json.dumps(summary))
    finish(directory, {"status": "done", "seconds": 2.0, "environment": {"memoroids": "9", "machine": "M"}})


def test_the_best_memory_stands_beside_the_published_score(tmp_path: Path):
    make(tmp_path, CHOICE, write)
    rows = scoreboard.against_published(results.load(tmp_path))
    known = only(rows, task="RepeatPreviousMedium")
    assert known["memory"] == "lru" and known["seeds"] == 2
    assert known["MMER"] == pytest.approx(0.8) and (known["MMER lowest"], known["MMER highest"]) == (0.7, 0.9)
    assert (known["final greedy"], known["final sampled"]) == (0.75, 0.5)
    assert (known["published"], known["source"], known["reached"]) == (0.789, "P", "yes")
    other = only(rows, task="MineSweeperEasy")
    assert (other["published"], other["source"], other["reached"]) == ("", "", "")
    assert len(rows) == 2


def test_a_way_without_an_evaluation_is_left_empty(tmp_path: Path):
    make(tmp_path, Choice("popgym", tasks=("RepeatPreviousMedium",), memories=("gru",), seeds=2), write)
    (row,) = scoreboard.against_published(results.load(tmp_path))
    assert (row["final greedy"], row["final sampled"], row["reached"]) == ("", 0.5, "no")


def test_a_record_has_what_differs_from_the_defaults(tmp_path: Path):
    make(tmp_path, CHOICE, write)
    rows = scoreboard.records(results.load(tmp_path))
    assert len(rows) == 8
    row = only(rows, task="RepeatPreviousMedium", memory="lru", seed=1)
    assert (row["MMER"], row["final greedy"], row["seconds"], row["memoroids"]) == (0.7, 1.25, 2.0, "9")
    assert "--discount 0.5" in row["settings"] and "--no-scale-rewards" in row["settings"]
    assert "--memory-sizes" in row["settings"] and "r_min 0.9" in row["settings"]
    assert "seed" not in row["settings"] and "--env " not in row["settings"]
    assert {"memoroids", "Python", "packages", "machine"} <= row.keys() and row["Python"] == ""


def test_other_grids_are_not_compared(tmp_path: Path):
    choice = Choice("figure4", tasks=("RepeatFirstEasy",), memories=("lru",), segment_lengths=(10,), seeds=1)
    make(tmp_path, choice, written)
    found = results.load(tmp_path)
    assert scoreboard.against_published(found) == [] and scoreboard.records(found) == []


def test_kept_records_stand_beside_the_runs_of_a_grid_which_replace_those_of_the_same_seed(tmp_path: Path):
    make(tmp_path / "old", CHOICE, write)
    old = scoreboard.records(results.load(tmp_path / "old"))
    other = only(old, task="RepeatPreviousMedium", memory="lru", seed=0) | {"seed": 7, "MMER": 0.5}
    changed = [row | {"MMER": 0.0} for row in old]
    tables.write([*changed, other], tmp_path / "records.csv")
    kept = scoreboard.read_records(tmp_path / "records.csv")
    assert kept == [*changed, other]

    choice = Choice("popgym", tasks=("RepeatPreviousMedium",), memories=("lru",), seeds=1, first_seed=1)
    make(tmp_path / "new", choice, write)
    found = results.load(tmp_path / "new")._replace(kept=kept)
    rows = scoreboard.records(found)
    assert len(rows) == 9 and only(rows, task="RepeatPreviousMedium", memory="lru", seed=1)["MMER"] == 0.7
    row = only(scoreboard.against_published(found), task="RepeatPreviousMedium")
    assert (row["memory"], row["seeds"], row["MMER"]) == ("lru", 3, pytest.approx((0.0 + 0.7 + 0.5) / 3))


def test_runs_with_other_settings_are_not_averaged_with_these(tmp_path: Path):
    make(tmp_path, CHOICE, write)
    found = results.load(tmp_path)
    first = only(scoreboard.records(found), task="RepeatPreviousMedium", memory="lru", seed=0)
    longer = [first | {"seed": seed, "MMER": 0.6, "settings": "--steps 5000000"} for seed in (5, 6, 7)]
    row = only(scoreboard.against_published(found._replace(kept=longer)), task="RepeatPreviousMedium")
    assert (row["seeds"], row["MMER"]) == (3, pytest.approx(0.6))


@pytest.mark.parametrize(
    ("text", "why"), [("task,memory\n", "it has no column 'seed'"), ("", "no column 'task'"), (None, "No such file")]
)
def test_a_file_that_holds_no_records_is_refused_in_one_line(text: str | None, why: str, tmp_path: Path):
    path = tmp_path / "records.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=why) as error:
        scoreboard.read_records(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
