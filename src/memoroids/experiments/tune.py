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
from filelock import FileLock

from memoroids._version import __version__
from memoroids.envs import task_of
from memoroids.experiments import cell_process, report, results, runner, tables
from memoroids.experiments.cell import INTERRUPTED, RUN, write_json
from memoroids.experiments.cell_process import CellProcess
from memoroids.experiments.executors import Executor, Refused
from memoroids.experiments.grid import Cell
from memoroids.experiments.grid_file import GridFile
from memoroids.experiments.study import Claim, Study, worker_number
from memoroids.experiments.tune_file import TuneFile
from memoroids.runs import metrics
from memoroids.runs.preset_file import PresetFile, is_file, read_preset, write_preset
from memoroids.runs.run_directory import METRICS, read_summary

DESCRIPTION, LOCK, TRIALS, BEST, COMPARISON = "tune.json", ".lock", "trials.csv", "best.toml", "comparison"
DEFAULT, FOUND = "before the search", "found"
"""What the two sides of the comparison are called."""


class TuneProgress(NamedTuple):
    """The progress of a search in this process: trials that have ended, of all; what is new, if anything is."""

    ended: int
    total: int
    news: str | None


@dataclass
class RunningTrial:
    """A trial and the process of one of its runs, of which it has one for each seed, one at a time.

    `first`: whether it is that of the first seed, by which it is decided whether the trial goes on.
    """

    claim: Claim
    first: bool
    process: CellProcess


class Refusal(NamedTuple):
    """A trial whose run the engine did not take, in its slot, and when it is to be asked again, `time.monotonic`."""

    claim: Claim
    slot: int
    tries: int
    until: float


def prepare(root: Path, tune: TuneFile) -> None:
    """Writes the description of a search to `root`. Raises `ValueError` if `root` holds anything else."""
    told = json.loads(json.dumps({"version": __version__} | dataclasses.asdict(tune)))
    path = root / DESCRIPTION
    partial = {DESCRIPTION, f".{DESCRIPTION}", LOCK}  # what another process may be writing at this moment
    if root.exists() and not path.exists() and (not root.is_dir() or {each.name for each in root.iterdir()} - partial):
        raise ValueError(f"{root} is not an empty directory and holds no search: choose another --output")
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / LOCK):
        if not path.exists():
            write_json(path, told)
    try:
        before = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not a valid description of a search: {error}") from error
    if before != told:
        raise ValueError(f"{root} holds another search, or one of another version: choose another --output")


def search(root: Path, tune: TuneFile, executor: Executor, *, watch: Callable[[TuneProgress], None]) -> Study:
    """Runs trials until the study has as many as it was told; several processes may call it.

    A trial that a killed process left unfinished is gone on with from its newest checkpoint, with its settings. One
    that fails counts and has no value. Ctrl-C ends the runs of this process, which can be continued.
    """
    study = Study(root, tune)
    running: list[RunningTrial] = []
    refused: list[Refusal] = []
    free = list(range(executor.jobs))[::-1]

    def show(news: str | None = None) -> None:
        rows = study.rows()
        watch(TuneProgress(sum(row["state"] != "running" for row in rows), tune.trials, news))

    with worker_number(root) as worker, runner.terminating(lambda: [each.process for each in running]):

        def begin(claim: Claim, slot: int, tries: int = 1) -> str | None:
            """Starts the next run of a trial, or puts it off; returns how the trial has ended, if it has none left."""
            try:
                cells = _cells(tune, claim)
            except ValueError as error:  # settings that do not go together
                study.finish(claim, None)
                return f"failed ({error})"
            values = [_value(root, cell) for cell in cells]
            reached = [value for value in values if value is not None]
            if len(reached) == len(cells):
                mean = float(np.mean(reached))
                study.finish(claim, mean)
                return f"has {mean:.4g}"
            cell = cells[values.index(None)]
            cache = root.absolute() / cell_process.CACHE / f"{worker}-{slot}"
            try:
                handle = executor.start(cell_process.make_ready(root, [cell]), slot, cache)
            except Refused as error:
                if not running:
                    raise
                show(f"{error}; trying again in {runner.REFUSED_SECONDS:.0f} s")
                refused.append(Refusal(claim, slot, tries, time.monotonic() + runner.REFUSED_SECONDS))
                return None
            process = CellProcess((cell,), handle, slot, tries, time.monotonic())
            running.append(RunningTrial(claim, cell == cells[0], process))
            return None

        def told(claim: Claim, slot: int, ended: str | None) -> None:
            if ended is not None:
                free.append(slot)
                show(f"trial {claim.number} {ended}: {_text(claim.found)}")

        while True:
            for each in [each for each in refused if time.monotonic() >= each.until]:
                refused.remove(each)
                told(each.claim, each.slot, begin(each.claim, each.slot, each.tries))
            while free and not refused and (claim := study.claim()) is not None:
                slot = free.pop()
                told(claim, slot, begin(claim, slot))
            show()
            if not running and not refused:
                return study
            time.sleep(runner.POLL_SECONDS)
            for each in list(running):
                claim, process = each.claim, each.process
                code = process.handle.poll()
                badly = _reports_badly(root, each)  # reported even of a run that is over, to judge others by
                if code is None and not badly:
                    continue
                running.remove(each)
                if code is None:
                    process.handle.kill()
                    process.handle.wait()
                    study.finish(claim, None, pruned=True)
                    told(claim, process.slot, "ended early, worse than most")
                elif _value(root, process.cells[0]) is not None:
                    told(claim, process.slot, begin(claim, process.slot))
                elif (code < 0 or code == INTERRUPTED) and process.tries < executor.tries:
                    told(claim, process.slot, begin(claim, process.slot, process.tries + 1))
                else:
                    study.finish(claim, None)
                    told(claim, process.slot, f"failed ({_reason(root, process.cells[0], code)})")


def _cells(tune: TuneFile, claim: Claim) -> list[Cell]:
    """The runs of a trial."""
    seeds = range(tune.first_seed, tune.first_seed + tune.seeds)
    return [_cell(f"trial{claim.number:04d}", tune, claim.found, seed) for seed in seeds]


def _cell(label: str, tune: TuneFile, found: dict[str, Any], seed: int) -> Cell:
    config = tune.config(found, seed)
    name = f"{label.replace(' ', '-')}-seed{seed}"
    return Cell(name, task_of(config.env.id), config.network.memory, label, seed, config)


def _value(root: Path, cell: Cell) -> float | None:
    """The final return of a run; None if it has not finished, or with none."""
    end = cell_process.status(root, cell)
    summary = read_summary(cell_process.cell_dir(root, cell) / RUN) if end and end["status"] == "done" else None
    value = math.nan if summary is None else float(summary["final_return"])
    return value if math.isfinite(value) else None


def _reason(root: Path, cell: Cell, code: int) -> str:
    end = cell_process.status(root, cell)
    return end["reason"] if end and "reason" in end else cell_process.failure_reason(root, cell, code)


def _reports_badly(root: Path, each: RunningTrial) -> bool:
    """Reports the evaluations of a run so far. Returns whether the trial should be ended."""
    if not each.first:
        return False
    try:
        rows = metrics.read(cell_process.cell_dir(root, each.process.cells[0]) / RUN / METRICS)
    except (OSError, ValueError):
        return False
    news = [step for step in range(len(rows)) if step not in each.claim.reported]
    return any([each.claim.report(step, rows[step]["eval_return"]) for step in news])


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
        out[run.cell.batching].append(run.summary["final_return"])
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
    base = read_preset(Path(tune.preset)) if is_file(tune.preset) else PresetFile(tune.preset, {})
    write_preset(root / BEST, PresetFile(base.base, base.settings | tune.settings | found), comments)
    return root / BEST


def _text(found: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in found.items()
    )
