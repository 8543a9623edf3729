"""The table of the suite, from runs with known returns."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from written_grids import only

from memoroids.experiments import suite_report
from memoroids.experiments.grid import Cell
from memoroids.experiments.random_returns import RandomReturn
from memoroids.experiments.results import Gap, Results, Run
from memoroids.experiments.suite import SUITE, SuiteChoice, SuiteTask, suite_cells
from memoroids.runs.settings_file import to_json


def run(cell: Cell, evaluations: Sequence[tuple[int, float]], final: float) -> Run:
    """A run with these evaluations, (environment steps, return) each, of 1,000 steps a second."""
    rows = [{"env_steps": steps, "eval_return": value, "seconds": steps / 1_000} for steps, value in evaluations]
    return Run(cell, Path("nowhere"), rows, {"final_return": final}, None, None, {})


def grid(choice: SuiteChoice, runs: Sequence[Run], gaps: Sequence[Gap] = ()) -> Results:
    cells = suite_cells(choice)
    entries = [{**dataclasses.asdict(cell), "config": json.loads(to_json(cell.config))} for cell in cells]
    described = {"choice": dataclasses.asdict(choice), "cells": entries, "command": "memoroids reproduce suite"}
    return Results(described, list(runs), list(gaps))


CARTPOLE = SuiteChoice(tasks=("cartpole",), algorithms=("ppo", "pqn"))


def cartpole() -> Results:
    runs = []
    for cell in suite_cells(CARTPOLE):
        if cell.config.algorithm == "ppo":
            runs.append(run(cell, [(50_000, 500.0), (101_000, 300.0)], (480.0, 470.0, 490.0)[cell.seed]))
        else:
            runs.append(run(cell, [(90_000, 20.0 + cell.seed), (151_000, 100.0)], 399.0))
    return grid(CARTPOLE, runs)


def test_a_row_holds_medians_and_ranges_over_seeds():
    row = only(suite_report.rows(cartpole(), {}), agent="ppo")
    assert (row["environment"], row["memory"], row["seeds"], row["steps"]) == ("cartpole", "lru", 3, 100_000)
    assert (row["final"], row["final low"], row["final high"]) == (480.0, 470.0, 490.0)
    assert (row["best"], row["best low"], row["best high"]) == (500.0, 500.0, 500.0)
    assert row["steps/s"] == 1_000 and row["status"] == "done"


def test_a_target_is_met_by_the_median_at_its_steps():
    ppo, pqn = (only(suite_report.rows(cartpole(), {}), agent=agent) for agent in ("ppo", "pqn"))
    assert (ppo["target"], ppo["by steps"], ppo["met"]) == (475.0, 100_000, "yes")
    assert (pqn["target"], pqn["by steps"], pqn["met"]) == (400.0, 150_000, "no")


def test_above_random_is_judged_at_100_000_steps_by_the_last_evaluation_within_them():
    found = {"cartpole": RandomReturn(21.0, 0.25)}
    rows = suite_report.rows(cartpole(), found)
    ppo, pqn = (only(rows, agent=agent) for agent in ("ppo", "pqn"))
    assert ppo["at 100,000"] == 480.0 and ppo["above random"] == "yes"  # its budget ends there
    assert pqn["at 100,000"] == 21.0 and pqn["above random"] == "no" and pqn["random"] == 21.0
    found = {"cartpole": RandomReturn(21.0, 0.0)}
    assert only(suite_report.rows(cartpole(), found), agent="pqn")["above random"] == "no"
    assert only(suite_report.rows(cartpole(), {}), agent="pqn")["above random"] == ""


@pytest.mark.parametrize(("steps", "met"), [(50_000, ""), (200_000, "no"), (100_000, "yes")])
def test_a_run_of_another_budget_is_judged_by_what_it_had_reached(steps: int, met: str):
    choice = SuiteChoice(tasks=("cartpole",), algorithms=("ppo",), seeds=1, steps=steps)
    (cell,) = suite_cells(choice)
    found = grid(choice, [run(cell, [(60_000, 400.0), (99_000, 470.0), (200_000, 500.0)], 500.0)])
    (row,) = suite_report.rows(found, {})
    assert row["met"] == met


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SUITE, "lacking", SuiteTask("CartPole-v1", package="no_such_package", install="no-such"))
    choice = SuiteChoice(tasks=("cartpole", "lacking"), algorithms=("ppo",), seeds=2)
    first, second = suite_cells(choice)
    found = grid(choice, [run(first, [(100_100, 1.0)], 2.5)], [Gap(second, "not run yet")])
    (tmp_path / "random.json").write_text('{"cartpole": {"mean": 22.5, "error": 0.5}}')
    page = suite_report.write(found, tmp_path, tmp_path / "report")
    text = page.read_text()
    assert "1 of 2 runs done" in text and "- cartpole-ppo-lru-seed1: not run yet" in text
    assert "    memoroids reproduce suite\n" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[2].startswith("| cartpole | ppo | lru | 1 | 100,000 | 2.50 | 1 | 2.50 | 22.50 | no | 475 |")
    assert lines[2].endswith("| no | 1,000 | 1 of 2 seeds |")
    assert lines[3].startswith("| lacking | ") and lines[3].endswith("| left out: pip install no-such |")
    assert len({line.count("|") for line in lines}) == 1
    with (tmp_path / "report" / "suite.csv").open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    assert [row["environment"] for row in rows] == ["cartpole", "lacking"]
    assert rows[0]["final low"] == rows[0]["final high"] == "2.5" and rows[1]["final"] == ""
