"""The table of an environment and its twin, from runs with known returns."""

import json
from pathlib import Path

import pytest
from fake_cell import finish, write_metrics
from written_grids import only

from memoroids.experiments import cell_process, observability_report, report, results, runner
from memoroids.experiments.grid import Cell
from memoroids.experiments.observability import PARTIAL, TWIN, GapChoice, gap_cells
from memoroids.runs.settings_file import to_json

CHOICE = GapChoice("device:RepeatFirstEasy", memories=("lru", "gru"), seeds=3)
RETURNS = {
    (PARTIAL, "lru"): 0.5,
    (TWIN, "lru"): 0.75,
    (PARTIAL, "mlp"): -0.5,
    (TWIN, "mlp"): 1.0,
    (PARTIAL, "gru"): 0.25,
}


def write(root: Path, cell: Cell) -> None:
    directory = cell_process.cell_dir(root, cell)
    directory.mkdir(parents=True)
    (directory / "settings.json").write_text(to_json(cell.config) + "\n")
    value = RETURNS[cell.task, cell.memory] + (cell.seed - 1) * 0.125
    write_metrics(directory / "run", json.loads(to_json(cell.config)), [0.0, value])
    (directory / "run" / "summary.json").write_text(json.dumps({"final_return": value, "target_return": None}))
    finish(directory, {"status": "done", "seconds": 1.0})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A grid whose gru has no run on the twin yet."""
    found = gap_cells(CHOICE)
    runner.prepare(tmp_path / "grid", CHOICE, found, "memoroids gap device:RepeatFirstEasy")
    for cell in found:
        if (cell.task, cell.memory) in RETURNS:
            write(tmp_path / "grid", cell)
    return tmp_path / "grid"


def test_gap_bias_and_worth_are_differences_of_means(root: Path):
    rows = observability_report.rows(results.load(root))
    lru = only(rows, memory="lru")
    assert (lru["partial"], lru["twin"], lru["seeds"]) == pytest.approx((0.5, 0.75, 3))
    assert lru["observability gap"] == pytest.approx(0.25)
    assert lru["memory bias"] == pytest.approx(0.25) and lru["worth"] == pytest.approx(1.0)
    assert lru["partial low"] < 0.5 < lru["partial high"]
    assert lru["worth low"] < 1.0 < lru["worth high"]
    plain = only(rows, memory="mlp")
    assert plain["observability gap"] == pytest.approx(1.5) and plain["memory bias"] == plain["worth"] == ""


def test_what_is_missing_is_empty_and_named(root: Path):
    gru = only(observability_report.rows(results.load(root)), memory="gru")
    assert gru["seeds"] == 0 and gru["twin"] == gru["observability gap"] == gru["memory bias"] == ""
    assert gru["worth"] == pytest.approx(0.75)
    page = report.write(root)
    text = page.read_text()
    assert page.name == "gap.md" and "15 of 18 runs done." in text
    assert "- twin-gru-seed0: not run yet" in text and "    memoroids gap device:RepeatFirstEasy" in text
    assert "| lru | 3 |" in text and (root / "report" / "gap.csv").exists()
