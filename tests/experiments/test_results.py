"""Reading the results of a grid: a run that cannot be read is reported as missing."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written_grids import CHOICE, FIRST, make

from memoroids.experiments import cell_process, results, tables
from memoroids.runs.metrics import FIELDS


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda run: (run / "summary.json").unlink(), "summary"),
        (lambda run: (run / "summary.json").write_text("{"), "summary.json"),
        (lambda run: (run / "summary.json").write_text("{}"), "final_return"),
        (lambda run: (run / "metrics.csv").unlink(), "metrics.csv"),
        (lambda run: (run / "metrics.csv").write_text(",".join(FIELDS) + "\n"), "metrics.csv"),
        (lambda run: (run / "metrics.csv").write_text("a,b\n"), "metrics.csv"),
        (lambda run: write_nan_return(run), "metrics.csv"),
        (lambda run: (run / "sensitivity.json").write_text("{"), "sensitivity.csv"),
        (lambda run: (run / "sensitivity.csv").write_text("a,b\n1,2\n"), "sensitivity.csv"),
    ],
)
def test_a_run_that_cannot_be_read_is_a_gap_that_names_the_file(
    damage: Callable[[Path], Any], word: str, tmp_path: Path
):
    found = make(tmp_path / "grid", dataclasses.replace(CHOICE, tasks=FIRST[:1]))
    damage(cell_process.cell_dir(tmp_path / "grid", found[0]) / "run")
    read = results.load(tmp_path / "grid")
    (gap,) = read.gaps
    assert gap.cell == found[0] and word in gap.reason and str(tmp_path) in gap.reason and "\n" not in gap.reason
    for make_table in tables.TABLES.values():
        make_table(read)


def write_nan_return(run: Path) -> None:
    row = dict.fromkeys(FIELDS, "10") | {"eval_return": "nan"}
    (run / "metrics.csv").write_text(",".join(FIELDS) + "\n" + ",".join(row.values()) + "\n")


def test_a_run_that_one_grid_has_left_unfinished_is_that_of_the_grid_that_has_finished_it(tmp_path: Path):
    choice = dataclasses.replace(CHOICE, tasks=FIRST[:1])
    found = make(tmp_path / "left", choice)
    make(tmp_path / "whole", dataclasses.replace(choice, seeds=1))
    for cell in found:
        if cell.seed != 1:  # of the seeds 0, 1 and 2 it has finished the second alone
            (cell_process.cell_dir(tmp_path / "left", cell) / "cell.json").unlink()
    joined = results.join([tmp_path / "left", tmp_path / "whole"])
    assert sorted((run.cell.batching, run.cell.seed) for run in joined.runs) == sorted(
        (cell.batching, cell.seed) for cell in found if cell.seed < 2
    )
    assert [gap.cell for gap in joined.gaps] == [cell for cell in found if cell.seed == 2]
    assert [cell["name"] for cell in joined.grid["cells"]] == [cell.name for cell in found]
    with pytest.raises(ValueError, match="is a run of several of these grids"):
        results.join([tmp_path / "whole", tmp_path / "whole"])
