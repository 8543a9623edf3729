"""Runs the trials of a search, ends those that do badly, and compares what was found with what there was."""

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memoroids._version import __version__
from memoroids.envs import task_of
from memoroids.experiments import cell_process, report, results, runner, tables
from memoroids.experiments.cell import RUN, write_json
from memoroids.experiments.cell_process import CellProcess
from memoroids.experiments.executors import Executor
from memoroids.experiments.grid import Batching, Cell
from memoroids.experiments.grid_file import GridFile
from memoroids.experiments.study import Claim, Study, worker_number
from memoroids.experiments.tune_file import TuneFile
from memoroids.runs import metrics
from memoroids.runs.preset_file import PresetFile, write_preset
from memoroids.runs.run_directory import METRICS, read_summary

DESCRIPTION, TRIALS, BEST, COMPARISON = "tune.json", "trials.csv", "best.toml", "comparison"
DEFAULT, FOUND = "before the search", "found"
"""What the two sides of the comparison are called."""


class TuneProgress(NamedTuple):
    """The progress of a search in this process: trials that have ended, of all; what is new, if anything is."""

    ended: int
    total: int
    news: str | None


@dataclass
class RunningTrial:
    """A trial with its runs, one for each seed and one at a time: the values of those that are done."""

    claim: Claim
    cells: list[Cell]
    process: CellProcess
    values: list[float]


def prepare(root: Path, tune: TuneFile) -> None:
    """Writes the description of a search to `root`. Raises `ValueError` if `root` holds anything else."""
    told = json.loads(json.dumps({"version": __version__} | dataclasses.asdict(tune)))
    path = root / DESCRIPTION
    if path.exists():
        try:
            before = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is not a valid description of a search: {error}") from error
        if before != told:
            raise ValueError(f"{root} holds another search, or one of another version: choose another --output")
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root} is not an empty directory and holds no search: choose another --output")
    root.mkdir(parents=True, exist_ok=True)
    write_json(path, told)


def search(root: Path, tune: TuneFile, executor: Executor, *, watch: Callable[[TuneProgress], None]) -> Study:
    """Runs trials until the study has as many as it was told; several processes may call it.

    A trial that a killed process left unfinished is gone on with from its newest checkpoint, with its settings. One
    that fails counts and has no value. Ctrl-C ends the runs of this process, which can be continued.
    """
    study = Study(root, tune)
    running: list[RunningTrial] = []
    free = list(range(executor.jobs))[::-1]

    def show(news: str | None = None) -> None:
        rows = study.rows()
        watch(TuneProgress(sum(row["state"] != "running" for row in rows), tune.trials, news))

    with worker_number(root) as worker, runner.terminating(lambda: [each.process for each in running]):

        def begin(claim: Claim, cells: list[Cell], slot: int, values: list[float]) -> RunningTrial:
            cache = root.absolute() / cell_process.CACHE / f"{worker}-{slot}"
            handle = executor.start(cell_process.make_ready(root, cells[:1]), slot, cache)
            return RunningTrial(claim, cells, CellProcess((cells[0],), handle, slot, 1, time.monotonic()), values)

        while True:
            while free and (claim := study.claim()) is not None:
                running.append(begin(claim, _cells(tune, claim), free.pop(), []))
            show()
            if not running:
                return study
            time.sleep(runner.POLL_SECONDS)
            for each in list(running):
                ended = _look(root, tune, study, each)
                if ended is None:
                    continue
                running.remove(each)
                if ended == "next seed":
                    running.append(begin(each.claim, each.cells[1:], each.process.slot, each.values))
                else:
                    free.append(each.process.slot)
                    show(f"trial {each.claim.number} {ended}: {_text(each.claim.found)}")


def _cells(tune: TuneFile, claim: Claim) -> list[Cell]:
    """The runs of a trial."""
    seeds = range(tune.first_seed, tune.first_seed + tune.seeds)
    return [_cell(f"trial{claim.number:04d}", tune, claim.found, seed) for seed in seeds]


def _cell(label: str, tune: TuneFile, found: dict[str, Any], seed: int) -> Cell:
    config = tune.config(found, seed)
    name = f"{label.replace(' ', '-')}-seed{seed}"
    return Cell(name, task_of(config.env.id), config.network.memory, f"{Batching().label}, {label}", seed, config)


def _look(root: Path, tune: TuneFile, study: Study, each: RunningTrial) -> str | None:
    """Looks at a trial that runs: how it has ended, "next seed", or None while it goes on."""
    cell, code = each.cells[0], each.process.handle.poll()
    if not each.values and _reports_badly(root, cell, each.claim) and code is None:
        each.process.handle.kill()
        each.process.handle.wait()
        study.finish(each.claim, None, pruned=True)
        return "ended early, worse than most"
    if code is None:
        return None
    end = cell_process.status(root, cell)
    summary = read_summary(cell_process.cell_dir(root, cell) / RUN) if end and end["status"] == "done" else None
    value = float(summary["final_return"]) if summary else math.nan
    if not math.isfinite(value):
        study.finish(each.claim, None)
        why = end["reason"] if end and "reason" in end else cell_process.failure_reason(root, cell, code)
        return f"failed ({why})"
    each.values.append(value)
    if len(each.cells) > 1:
        return "next seed"
    mean = float(np.mean(each.values))
    study.finish(each.claim, mean)
    return f"has {mean:.4g}"


def _reports_badly(root: Path, cell: Cell, claim: Claim) -> bool:
    """Reports the evaluations of a run so far. Returns whether it should be ended."""
    try:
        rows = metrics.read(cell_process.cell_dir(root, cell) / RUN / METRICS)
    except (OSError, ValueError):
        return False
    news = [step for step in range(len(rows)) if step not in claim.reported]
    return any([claim.report(step, rows[step]["eval_return"]) for step in news])


def compare(root: Path, tune: TuneFile, found: dict[str, Any], executor: Executor, *, command: str) -> Path:
    """Trains with what was found and with what there was before, on fresh seeds, and writes a report; returns its page.

    Raises `ValueError` if another process does so.
    """
    seeds = range(tune.first_report_seed, tune.first_report_seed + tune.report_seeds)
    sides = {FOUND: found, DEFAULT: {}}
    cells = [_cell(label, tune, values, seed) for seed in seeds for label, values in sides.items()]
    about = f"What a search of {tune.trials} trials found, on seeds that it did not see: {_text(found)}."
    grid = GridFile(f"{tune.title}: before and after the search", about, tune.preset, settings=tune.settings)
    directory = root / COMPARISON
    runner.prepare(directory, grid, cells, command)
    runner.run(directory, cells, executor=executor, watch=lambda moment: None)
    return report.write(directory)


def finals(root: Path) -> dict[str, list[float]]:
    """The final returns of both sides of the comparison, by `FOUND` and `DEFAULT`."""
    out: dict[str, list[float]] = {FOUND: [], DEFAULT: []}
    for run in results.load(root / COMPARISON).runs:
        out[run.cell.batching.partition(", ")[2]].append(run.summary["final_return"])
    return out


def write(root: Path, tune: TuneFile, study: Study) -> Path | None:
    """Writes the table of trials and the best settings as a preset. Returns its path; None if no trial has a value."""
    tables.write(study.rows(), root / TRIALS)
    best = study.best()
    if best is None:
        return None
    number, value, found = best
    comments = [
        f"{tune.title}: the best of {tune.trials} trials, number {number}, with a return of {value:.6g} on",
        f"{tune.seeds} seed(s) from {tune.first_seed} on. Use: memoroids train --preset FILE",
    ]
    write_preset(root / BEST, PresetFile(tune.preset, tune.settings | found), comments)
    return root / BEST


def _text(found: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in found.items()
    )
