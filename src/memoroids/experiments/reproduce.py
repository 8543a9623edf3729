"""Runs a grid, of a figure, the suite, two environments or the user's own; shows its progress and writes its report."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from memoroids._util.clock import clock
from memoroids.benchmarks import batching
from memoroids.envs import task_of
from memoroids.experiments import cell_process, random_returns, report, results, runner, tables
from memoroids.experiments.executors import make_executor
from memoroids.experiments.figure_grids import Choice, Scale, cells, figure_grid
from memoroids.experiments.grid import Cell
from memoroids.experiments.grid_file import GridFile, grid_cells
from memoroids.experiments.observability import GapChoice, gap_cells
from memoroids.experiments.runner import GridProgress
from memoroids.experiments.suite import SuiteChoice, suite_cells


def default_jobs() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Execution:
    """How a grid is run: by what command, cells that share a process, whether failures run again, and where.

    `executor`: its name; `resources`: what it takes for each process, see `make_executor`.
    """

    jobs: int
    command: str
    together: int = 1
    retry: bool = False
    executor: str = "local"
    resources: dict[str, Any] = field(default_factory=dict)


def reproduce(choice: Choice, root: Path, execution: Execution) -> bool:
    """Runs the unfinished cells of a figure's grid and writes its report. Returns whether every cell is done.

    Raises `ValueError` if the choice is not a valid grid or `root` holds anything else.
    """

    def time_parts(found: Sequence[Cell], console: Console) -> None:
        done = [cell for cell in found if (end := cell_process.status(root, cell)) and end["status"] == "done"]
        if choice.figure == "figure5-training" and done and not (root / report.SPLIT).exists():
            console.print("timing the parts of a training episode: collecting, storing, sampling and updating")
            tables.write(_split(choice.scale, done), root / report.SPLIT)

    title = f"{choice.figure}, {figure_grid(choice.figure).title}"
    return _run(choice, cells(choice), title, root, execution, scale=choice.scale, after=time_parts)


def reproduce_suite(choice: SuiteChoice, root: Path, execution: Execution) -> bool:
    """Runs the unfinished runs of the suite and writes its table, as `reproduce` does."""
    title = "suite, agents with their defaults"
    measured = partial(random_returns.measure, root)
    return _run(choice, suite_cells(choice), title, root, execution, scale=choice.scale, before=measured)


def measure_gap(choice: GapChoice, root: Path, execution: Execution) -> bool:
    """Runs the unfinished runs on an environment and its twin and writes their table, as `reproduce` does."""
    return _run(choice, gap_cells(choice), f"{choice.env} and its twin", root, execution)


def run_grid(grid: GridFile, root: Path, execution: Execution) -> bool:
    """Runs the unfinished cells of a grid of the user's own and writes its report, as `reproduce` does."""
    return _run(grid, grid_cells(grid), grid.title, root, execution, scale=grid.scale)


def _run(
    choice: Choice | SuiteChoice | GapChoice | GridFile,
    found: list[Cell],
    title: str,
    root: Path,
    execution: Execution,
    *,
    scale: str = "",
    before: Callable[[Sequence[Cell]], Any] = lambda found: None,
    after: Callable[[Sequence[Cell], Console], None] = lambda found, console: None,
) -> bool:
    """Runs the unfinished cells between `before` and `after`, then writes the report. Returns whether all are done."""
    executor = make_executor(execution.executor, execution.jobs, root, execution.resources)
    runner.prepare(root, choice, found, execution.command)
    before(found)
    together, again = execution.together, execution.retry
    with GridDisplay(title, scale, root, len(found), execution.jobs) as display:
        runner.run(root, found, executor=executor, together=together, retry=again, watch=display.show)
        after(found, display.console)
    return _report(root, display)


def _report(root: Path, display: "GridDisplay") -> bool:
    """Writes the report of a grid and says where. Returns whether every cell is done."""
    page = report.write(root)
    display.console.print(f"report: {page}", highlight=False, soft_wrap=True, markup=False)
    return not results.load(root).gaps


def _split(scale: Scale, found: Sequence[Cell]) -> list[tables.Row]:
    """The time of each part of a training episode, for the grid's tasks, memories and segment lengths."""
    lengths = sorted({cell.config.replay.segment_length for cell in found if cell.config.replay.batching == "segments"})
    pairs = dict.fromkeys((cell.config.env.id, cell.memory) for cell in found)
    repeats = 3 if scale == "smoke" else 20
    return [
        {"task": task_of(env)} | row
        for env, memory in pairs
        for row in batching.measure(repeats, env=env, memories=[memory], lengths=lengths)
    ]


class GridDisplay:
    """A live progress bar on a terminal; otherwise a line for each cell that ends."""

    def __init__(self, title: str, scale: str, root: Path, total: int, jobs: int):
        self.console = Console()
        at_scale = f" at scale {scale}" if scale else ""
        self.banner = f"{title}: {total} runs{at_scale}, {jobs} at a time -> {root}"
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=18), TextColumn("{task.fields[figures]}"))
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.progress.add_task("runs", total=total, figures="")

    def __enter__(self) -> "GridDisplay":
        self.console.print(self.banner, highlight=False, soft_wrap=True, markup=False)
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def show(self, moment: GridProgress) -> None:
        """Updates the bar and prints the news of `moment`."""
        done = moment.done + moment.failed
        left = "" if moment.seconds_left is None else f", {clock(moment.seconds_left)} left"
        failed = f", {moment.failed} failed" if moment.failed else ""
        summary = f"{done}/{moment.total}{failed}{left}"
        if moment.news is not None:
            line = moment.news if self.console.is_terminal else f"{summary}: {moment.news}"
            self.console.print(line, highlight=False, soft_wrap=True, markup=False)
        running = "  ".join(f"{cell.name} {share:.0%}" for cell, share in moment.running)
        share = sum(share for _, share in moment.running)
        self.progress.update(self.task, completed=done + share, figures=f"{summary}  {running}")
