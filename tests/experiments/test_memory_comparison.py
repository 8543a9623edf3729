"""Memories against each other: hand-computed figures over the tasks that all have."""

import json
from pathlib import Path

import numpy as np
import pytest
from fake_cell import finish, write_metrics
from written_grids import make, only

from memoroids.experiments import memory_comparison, results
from memoroids.experiments.figure_grids import Choice
from memoroids.experiments.grid import Cell
from memoroids.experiments.results import Results
from memoroids.runs.settings_file import to_json

CHOICE = Choice("popgym", tasks=("RepeatFirstEasy", "RepeatFirstHard"), memories=("lru", "gru", "s5"), seeds=2)
RETURNS = {
    ("RepeatFirstEasy", "lru"): (0.0, 0.5),
    ("RepeatFirstHard", "lru"): (-1.0, 1.0),
    ("RepeatFirstEasy", "gru"): (0.5, 0.75),
    ("RepeatFirstHard", "gru"): (-0.5, 1.0),
    ("RepeatFirstEasy", "s5"): (0.0, 0.0),
    ("RepeatFirstHard", "s5"): (0.0, 0.0),
}


def loaded(root: Path, choice: Choice = CHOICE, *, without: tuple[str, str] = ("", "")) -> Results:
    def write(cell: Cell, directory: Path) -> None:
        if (cell.task, cell.memory) == without:
            return
        value = RETURNS[cell.task, cell.memory][cell.seed]
        directory.mkdir(parents=True)
        (directory / "settings.json").write_text(to_json(cell.config) + "\n")
        write_metrics(directory / "run", json.loads(to_json(cell.config)), [0.0, value])
        (directory / "run" / "summary.json").write_text(json.dumps({"final_return": value, "target_return": None}))
        finish(directory, {"status": "done", "seconds": 1.0})

    make(root, choice, write)
    return results.load(root)


def test_means_over_tasks_and_their_order(tmp_path: Path):
    rows = memory_comparison.memories(loaded(tmp_path / "grid"))
    assert [row["memory"] for row in rows] == ["gru", "lru", "s5"]
    lru = only(rows, memory="lru")
    assert (lru["tasks"], lru["runs"]) == (2, 4)
    # Of -1, 0, 0.5 and 1 the middle half is 0 and 0.5.
    assert lru["interquartile mean"] == pytest.approx(0.25) and lru["mean"] == pytest.approx(0.125)
    assert lru["mean low"] < 0.125 < lru["mean high"]


def test_the_probability_that_one_is_better(tmp_path: Path):
    rows = memory_comparison.memory_pairs(loaded(tmp_path / "grid"))
    assert len(rows) == 6
    # Easy: 0.5 ties once with 0.5, and is above otherwise. Hard: above -1 twice, below and equal to 1 once each.
    found = only(rows, better="gru", than="lru")["P(improvement)"]
    assert found == pytest.approx(((1 + 0.5 + 1 + 1) / 4 + (1 + 0 + 1 + 0.5) / 4) / 2)
    assert only(rows, better="lru", than="gru")["P(improvement)"] == pytest.approx(1 - found)


def test_profiles_fall_from_all_runs_to_none(tmp_path: Path):
    rows = memory_comparison.performance_profiles(loaded(tmp_path / "grid"))
    lru = [row for row in rows if row["memory"] == "lru"]
    shares = [row["share"] for row in lru]
    assert shares == sorted(shares, reverse=True) and shares[-1] == 0
    assert only(lru, threshold=0.0)["share"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert only(lru, threshold=-0.5)["share"] == pytest.approx((1 + 1 / 2) / 2)
    assert all(row["low"] <= row["share"] <= row["high"] for row in rows)
    np.testing.assert_allclose([row["threshold"] for row in lru], np.linspace(-1, 1, 81), atol=1e-9)


def test_only_tasks_that_all_memories_have_count(tmp_path: Path):
    found = loaded(tmp_path / "grid", without=("RepeatFirstHard", "s5"))
    assert {tuple(of) for of in memory_comparison.compared(found).values()} == {("RepeatFirstEasy",)}
    assert only(memory_comparison.memories(found), memory="lru")["mean"] == pytest.approx(0.25)


def test_one_memory_is_not_compared(tmp_path: Path):
    found = loaded(tmp_path / "grid", Choice("popgym", tasks=("RepeatFirstEasy",), memories=("lru",), seeds=2))
    assert memory_comparison.memories(found) == memory_comparison.memory_pairs(found) == []
    assert memory_comparison.performance_profiles(found) == []
