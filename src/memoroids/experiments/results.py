"""The results of a grid, finished or not, read from its directory."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memoroids.experiments import cell_process, runner, statistics
from memoroids.experiments.cell import RUN
from memoroids.experiments.grid import Cell
from memoroids.runs import run_sensitivity as sensitivity
from memoroids.runs.run_directory import METRICS, SUMMARY, read_rows, read_summary
from memoroids.runs.setting_groups import EvaluationSettings


class Run(NamedTuple):
    """A finished run: its metrics, its summary, and its sensitivity by age (None if it was not measured)."""

    cell: Cell
    path: Path
    rows: list[dict[str, float]]
    summary: dict[str, Any]
    sensitivity: dict[str, Any] | None
    profile: np.ndarray | None
    environment: dict[str, str]
    """Versions, commit and machine that it was run with."""

    @property
    def target(self) -> float | None:
        """The mean return from which its environment counts as solved, if there is one."""
        return self.summary.get("target_return")

    def column(self, name: str) -> np.ndarray:
        """One column of its metrics, (evaluations,)."""
        return np.asarray([row[name] for row in self.rows])


class Gap(NamedTuple):
    """A cell without a result, and the reason."""

    cell: Cell
    reason: str


class Results(NamedTuple):
    """A grid: its description (grid.json), its finished runs and its gaps, and records kept of earlier runs."""

    grid: dict[str, Any]
    runs: list[Run]
    gaps: list[Gap]
    kept: Sequence[dict[str, Any]] = ()

    @property
    def way(self) -> str:
        """How its agents act in the evaluations that count: greedy, sampled, or greedy or sampled."""
        ways = {run.cell.config.evaluation.way for run in self.runs}
        return " or ".join(sorted(ways)) or EvaluationSettings().way

    def groups(self) -> dict[tuple[str, str, str], list[Run]]:
        """Runs that differ only in their seed, by task, memory and batching, in the order of the grid."""
        found: dict[tuple[str, str, str], list[Run]] = {}
        for run in self.runs:
            found.setdefault((run.cell.task, run.cell.memory, run.cell.batching), []).append(run)
        order = {(c["task"], c["memory"], c["batching"]): i for i, c in reversed(list(enumerate(self.grid["cells"])))}
        return dict(sorted(found.items(), key=lambda item: order[item[0]]))


def load(root: Path) -> Results:
    """Reads a grid's directory. Raises `ValueError` if it holds no grid, or one of another version of memoroids."""
    grid = runner.load_grid(root)
    runs, gaps = [], []
    for cell in runner.cells_of(grid):
        end = cell_process.status(root, cell)
        path = cell_process.cell_dir(root, cell) / RUN
        if end is None:
            gaps.append(Gap(cell, "not run yet" if not path.exists() else "not finished"))
        elif end["status"] == "failed":
            gaps.append(Gap(cell, end["reason"]))
        else:
            try:
                runs.append(_run(cell, path, end))
            except ValueError as error:
                gaps.append(Gap(cell, f"{error}; delete {path.parent} to run it again"))
    return Results(grid, runs, gaps)


def join(roots: Sequence[Path]) -> Results:
    """The results of several grids of one figure as those of one. Raises `ValueError` as `load`, and for two figures
    or scales.

    A run that several of them have finished is an error too, since it would count twice; one that is unfinished in some
    is that of the grid which has finished it.
    """
    found = [load(root) for root in roots]
    first = found[0]
    for root, other in zip(roots[1:], found[1:], strict=True):
        mine, its = (_kind(each) for each in (first, other))
        if mine != its:
            raise ValueError(f"{root} is a grid of {its}, {roots[0]} of {mine}: only grids of one kind can be joined")
    runs = [run for each in found for run in each.runs]
    names = [run.cell.name for run in runs]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"{twice[0]} is a run of several of these grids: join grids that have none in common")
    gaps = {gap.cell.name: gap for each in found for gap in each.gaps if gap.cell.name not in names}
    cells = {cell["name"]: cell for each in found for cell in each.grid["cells"]}
    command = "\n".join(each.grid["command"] for each in found)
    return Results(first.grid | {"cells": list(cells.values()), "command": command}, runs, list(gaps.values()))


def _kind(results: Results) -> str:
    return f"{results.grid['choice']['figure']} at scale {results.grid['choice'].get('scale')}"


def _run(cell: Cell, path: Path, end: dict[str, Any]) -> Run:
    """Raises `ValueError` if its files cannot be read or its returns are not finite."""
    rows, summary = read_rows(path), read_summary(path)
    if summary is None or "final_return" not in summary:
        raise ValueError(f"{path / SUMMARY} has no final_return")
    try:
        statistics.summary_of(rows)
    except ValueError as error:
        raise ValueError(f"{path / METRICS}: {error}") from error
    found = profile = None
    files = (path / sensitivity.JSON, path / sensitivity.CSV)
    if all(file.exists() for file in files):
        try:
            found = json.loads(files[0].read_text())
            with files[1].open(newline="") as file:
                profile = np.asarray([float(row["share"]) for row in csv.DictReader(file)])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{files[1]} or {files[0].name} cannot be read: {error}") from error
    if found is not None and not found["episodes"]:
        found = profile = None  # no episode in which the value depends on any observation
    made = end.get("environment", {"memoroids": "not recorded"})
    return Run(cell, path, rows, summary, found, profile, made)
