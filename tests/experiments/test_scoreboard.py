"""The comparison with published scores: by the mean over runs of the highest training return."""

import json
from pathlib import Path

import pytest
from fake_cell import finish, write_metrics
from written_grids import make, only, written

from memoroids.experiments import results, scoreboard
from memoroids.experiments.grid import Cell, Choice
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
