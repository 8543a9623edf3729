"""Runs a grid, its cells in processes; skips finished cells, records failures and continues with the rest."""

import contextlib
import dataclasses
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from memoroids._util.locks import Held, exclusive
from memoroids._version import __version__
from memoroids.experiments.cell import DONE, INTERRUPTED, write_json
from memoroids.experiments.cell_process import (
    CACHE,
    CellProcess,
    cell_dir,
    failure_reason,
    make_ready,
    share_done,
    status,
)
from memoroids.experiments.executors import Executor, Refused
from memoroids.experiments.figure_grids import Choice
from memoroids.experiments.grid import Cell
from memoroids.experiments.grid_file import GridFile
from memoroids.experiments.observability import GapChoice
from memoroids.experiments.suite import SuiteChoice
from memoroids.runs.settings_file import from_json, to_json
from memoroids.runs.shared_program import program_key

GRID = "grid.json"
REFUSED_SECONDS = 30.0
"""Time until an engine that takes no more processes is asked again, while it still runs some."""
POLL_SECONDS = 0.5
"""Time between two looks at the running processes."""


class GridProgress(NamedTuple):
    """The progress of a grid: cells done, failed and in total; running cells (cell, fraction done); seconds left."""

    done: int
    failed: int
    total: int
    running: list[tuple[Cell, float]]
    seconds_left: float | None
    news: str | None
    """A message about a cell that has just ended."""


def prepare(
    root: Path, choice: Choice | SuiteChoice | GapChoice | GridFile, cells: Sequence[Cell], command: str
) -> None:
    """Writes the description of a grid to `root`/grid.json. Raises `ValueError` if `root` holds anything else."""
    grid = {
        "version": __version__,
        "choice": dataclasses.asdict(choice),
        "command": command,
        "cells": [{**dataclasses.asdict(cell), "config": json.loads(to_json(cell.config))} for cell in cells],
    }
    grid = json.loads(json.dumps(grid, default=str))
    if (root / GRID).exists():
        before = load_grid(root)
        plain = {
            each.name: each.default for each in dataclasses.fields(choice) if each.default is not dataclasses.MISSING
        }
        asked = json.loads(json.dumps(plain)) | before["choice"]  # a grid may be older than an option
        if asked != grid["choice"] or cells_of(before) != cells_of(grid):
            raise ValueError(f"{root} holds another grid ({before['command']}): choose another --output")
        return
    # A partial grid.json, left by an interrupted write, does not count.
    if root.exists() and (not root.is_dir() or {path.name for path in root.iterdir()} - {f".{GRID}"}):
        raise ValueError(f"{root} is not an empty directory and holds no grid: choose another --output")
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / GRID, grid)


def load_grid(root: Path) -> dict[str, Any]:
    """Reads `root`/grid.json. Raises `ValueError` if it is missing, invalid or of another version of memoroids."""
    path = root / GRID
    try:
        grid = json.loads(path.read_text())
        version = grid["version"]
    except OSError as error:
        raise ValueError(f"{root} holds no grid: {path} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a valid grid file: {error}") from error
    if version != __version__:
        raise ValueError(
            f"{path} was written by memoroids {version}, this is {__version__}: run the grid again in another directory"
        )
    if missing := {"choice", "command", "cells"} - grid.keys():
        raise ValueError(f"{path} is not a valid grid file: it lacks {sorted(missing)[0]}")
    return grid


def cells_of(grid: dict[str, Any]) -> list[Cell]:
    """The cells of a grid's description. Raises `ValueError` if their settings are not valid."""
    return [Cell(**{**entry, "config": from_json(json.dumps(entry["config"]))}) for entry in grid["cells"]]


def run(
    root: Path,
    cells: Sequence[Cell],
    *,
    executor: Executor,
    together: int = 1,
    retry: bool = False,
    watch: Callable[[GridProgress], None],
) -> None:
    """Runs all cells that have not ended, as many processes at a time as `executor` has jobs.

    A process runs one cell, or up to `together` that run on device and can share a program, see `program_key`. An
    interrupted cell resumes from its newest checkpoint and gives the same result as an uninterrupted one, but for
    rounding if it shared its program with other numbers than before. If a cell fails, its reason is recorded and the
    other cells continue; `retry` runs failed cells again from the start. Cells whose process failed are run again one
    by one. Ctrl-C ends the running cells. `watch` is called with the progress after every poll.

    Raises `ValueError` if another process is running this grid.
    """
    unfinished: list[Cell] = []
    done = failed = 0
    for cell in cells:
        end = status(root, cell)
        if end is None or (end["status"] == "failed" and (retry or end.get("killed", False))):
            unfinished.append(cell)
        elif end["status"] == "done":
            done += 1
        else:
            failed += 1
    waiting = [(group, 1) for group in _groups(unfinished, together)]
    running: list[CellProcess] = []
    free = list(range(executor.jobs))[::-1]
    spent: list[float] = []
    later = 0.0

    def report_progress(news: str | None = None) -> None:
        left = [cell for group, _ in waiting for cell in group]
        watch(_progress(root, done, failed, cells, running, left, spent, executor.jobs, news))

    with _lock(root), terminating(lambda: running):
        report_progress()
        while waiting or running:
            while waiting and free and time.monotonic() >= later:
                group, tries = waiting[0]
                # Two processes must not write to the same cache.
                cache = (root / CACHE / str(free[-1])).absolute()
                try:
                    handle = executor.start(make_ready(root, group), free[-1], cache)
                except Refused as error:
                    if not running:
                        raise
                    report_progress(f"{error}; trying again in {REFUSED_SECONDS:.0f} s")
                    later = time.monotonic() + REFUSED_SECONDS
                    break
                waiting.pop(0)
                running.append(CellProcess(group, handle, free.pop(), tries, time.monotonic()))
            time.sleep(POLL_SECONDS)
            for process in list(running):
                code = process.handle.poll()
                if code is None:
                    continue
                running.remove(process)
                free.append(process.slot)
                again = []
                for cell in process.cells:
                    end, killed = _end(root, cell, code, process, executor.tries)
                    if end is None:
                        news = f"{cell.name} {killed or 'did not end with the others'}; restarting it"
                        again.append(((cell,), process.tries + (killed is not None)))
                    elif end["status"] == "done":
                        done += 1
                        spent.append((time.monotonic() - process.started) / len(process.cells))
                        news = f"{cell.name} done in {end['seconds']:.0f} s"
                    else:
                        failed += 1
                        news = f"{cell.name} failed: {end['reason']}"
                    report_progress(news)
                waiting[:0] = again
            report_progress()


def _groups(cells: Sequence[Cell], together: int) -> list[tuple[Cell, ...]]:
    """The cells of each process: up to `together` that run on device and can share a program."""
    if together == 1:
        return [(cell,) for cell in cells]
    alike: dict[str, list[Cell]] = {}
    for cell in cells:
        what = program_key(cell.config) if cell.config.env.on_device else cell.name
        alike.setdefault(what, []).append(cell)
    return [tuple(each[i : i + together]) for each in alike.values() for i in range(0, len(each), together)]


def _end(
    root: Path, cell: Cell, code: int, process: CellProcess, tries: int
) -> tuple[dict[str, Any] | None, str | None]:
    """How a cell ended whose process ended with `code`, recorded if it failed; None if it is to be run again.

    The second is how the process was stopped from outside, None if it was not.
    """
    end = status(root, cell)
    killed = f"was killed by signal {-code}" if code < 0 else "was interrupted" if code == INTERRUPTED else None
    alone = len(process.cells) == 1
    if end is None and alone and (killed is None or process.tries >= tries):
        reason = killed.removeprefix("was ") if killed else failure_reason(root, cell, code)
        end = {"status": "failed", "reason": reason, "killed": killed is not None}
        write_json(cell_dir(root, cell) / DONE, end)
    return end, killed


def _progress(
    root: Path,
    done: int,
    failed: int,
    cells: Sequence[Cell],
    running: list[CellProcess],
    waiting: Sequence[Cell],
    spent: list[float],
    jobs: int,
    news: str | None,
) -> GridProgress:
    shares = [(cell, share_done(root, cell)) for process in running for cell in process.cells]
    left = None
    if spent:
        rest = len(waiting) + sum(1 - share for _, share in shares)
        left = sum(spent) / len(spent) * rest / jobs
    return GridProgress(done, failed, len(cells), shares, left, news)


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(root / "lock"))
        except Held as held:
            raise ValueError(f"{held} is running the grid in {root}: wait for it, or choose another --output") from held
        yield


@contextlib.contextmanager
def terminating(running: Callable[[], Sequence[CellProcess]]) -> Iterator[None]:
    """Ends the processes that are running when the caller ends, for whatever reason; treats SIGTERM like Ctrl-C.

    Neither can keep it from ending all of them; what it waits for afterwards can be interrupted.
    """

    def interrupt(number: Any, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            for process in running():
                process.handle.kill()
        finally:
            signal.signal(signal.SIGINT, ctrl_c)
            signal.signal(signal.SIGTERM, before)
        for process in running():
            process.handle.wait()
