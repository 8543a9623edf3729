"""Runs a grid: each cell in a process of its own, finished ones skipped, broken ones marked and left behind."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from memoroids._util.files import atomic_write_text
from memoroids._version import __version__
from memoroids.experiments.cell import DONE, INTERRUPTED, LOG, RUN, SETTINGS, write_json
from memoroids.experiments.grid import Cell, Choice
from memoroids.runs.metrics import read
from memoroids.runs.run_directory import CONFIG, METRICS

GRID, CELLS, CACHE = "grid.json", "cells", "cache"
TRIES = 2
"""How often a cell is started whose process is killed from outside."""
_PAUSE = 0.5


class GridProgress(NamedTuple):
    """A moment of a grid: cells done, failed and in all, what runs now (cell, share done), and seconds left."""

    done: int
    failed: int
    total: int
    running: list[tuple[Cell, float]]
    seconds_left: float | None
    news: str | None
    """A line about a cell that has just ended."""


@dataclass
class _Process:
    cell: Cell
    popen: subprocess.Popen[bytes]
    slot: int
    tries: int
    started: float


def cell_dir(root: Path, cell: Cell) -> Path:
    """Where a cell's files are."""
    return root / CELLS / cell.name


def status(root: Path, cell: Cell) -> dict[str, Any] | None:
    """How a cell ended, {"status": "done" | "failed", …}; None where it has not, or was run with other settings."""
    directory = cell_dir(root, cell)
    try:
        if (directory / SETTINGS).read_text() != _settings(cell):
            return None
        end = json.loads((directory / DONE).read_text())
        needed = {"done": "seconds", "failed": "reason"}
        return end if isinstance(end, dict) and needed.get(end.get("status", "")) in end else None
    except (OSError, ValueError, TypeError):
        return None


def prepare(root: Path, choice: Choice, cells: Sequence[Cell], command: str) -> None:
    """Writes what the grid is to `root`/grid.json. Raises `ValueError` where `root` holds another grid or a run."""
    grid = {
        "version": __version__,
        "choice": dataclasses.asdict(choice),
        "command": command,
        "cells": [{**dataclasses.asdict(cell), "config": json.loads(cell.config.to_json())} for cell in cells],
    }
    grid = json.loads(json.dumps(grid, default=str))
    if (root / GRID).exists():
        before = load_grid(root)
        if before["choice"] != grid["choice"] or before["cells"] != grid["cells"]:
            raise ValueError(f"{root} holds another grid ({before['command']}): choose another --output")
        return
    # What was interrupted while it was written is no one's.
    if root.exists() and (not root.is_dir() or {path.name for path in root.iterdir()} - {f".{GRID}"}):
        raise ValueError(f"{root} is not an empty directory and holds no grid: choose another --output")
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / GRID, grid)


def load_grid(root: Path) -> dict[str, Any]:
    """The contents of `root`/grid.json. Raises `ValueError` where it cannot be read or is another version's."""
    path = root / GRID
    try:
        grid = json.loads(path.read_text())
        version = grid["version"]
    except OSError as error:
        raise ValueError(f"{root} holds no grid: {path} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a grid's: {error}") from error
    if version != __version__:
        raise ValueError(
            f"{path} was written by memoroids {version}, this is {__version__}: run the grid again in another directory"
        )
    if missing := {"choice", "command", "cells"} - grid.keys():
        raise ValueError(f"{path} is not a grid's: it has no {sorted(missing)[0]}")
    return grid


def run(
    root: Path, cells: Sequence[Cell], *, jobs: int, retry: bool = False, watch: Callable[[GridProgress], None]
) -> None:
    """Runs all cells that have not ended, `jobs` at a time, each with its share of the processor's cores.

    A cell that was interrupted goes on from its newest checkpoint, and ends as an uninterrupted one. One that fails is
    marked with its reason, and the rest goes on; `retry` runs such cells again, from their beginning. On Ctrl-C the
    running cells are ended. Raises `ValueError` where another process runs this grid.
    """
    waiting: list[tuple[Cell, int]] = []
    done = failed = 0
    for cell in cells:
        end = status(root, cell)
        if end is None or (end["status"] == "failed" and (retry or end.get("killed", False))):
            waiting.append((cell, 1))
        elif end["status"] == "done":
            done += 1
        else:
            failed += 1
    running: list[_Process] = []
    free = list(range(jobs))[::-1]
    spent: list[float] = []

    def tell(news: str | None = None) -> None:
        watch(_progress(root, done, failed, cells, running, waiting, spent, jobs, news))

    with _lock(root), _terminating(running):
        tell()
        while waiting or running:
            while waiting and free:
                cell, tries = waiting.pop(0)
                slot = free.pop()
                running.append(_Process(cell, _start(root, cell, slot, jobs), slot, tries, time.monotonic()))
            time.sleep(_PAUSE)
            for process in list(running):
                code = process.popen.poll()
                if code is None:
                    continue
                running.remove(process)
                free.append(process.slot)
                cell = process.cell
                end = status(root, cell)
                killed = f"killed by signal {-code}" if code < 0 else "interrupted" if code == INTERRUPTED else None
                if end is None and (killed is None or process.tries == TRIES):
                    reason = killed or _last_line(root, cell, code)
                    end = {"status": "failed", "reason": reason, "killed": killed is not None}
                    write_json(cell_dir(root, cell) / DONE, end)
                if end is None:
                    news = f"{cell.name} was {killed}, starting it again"
                    waiting.insert(0, (cell, process.tries + 1))
                elif end["status"] == "done":
                    done += 1
                    spent.append(time.monotonic() - process.started)
                    news = f"{cell.name} done in {end['seconds']:.0f} s"
                else:
                    failed += 1
                    news = f"{cell.name} failed: {end['reason']}"
                tell(news)
            tell()


def _settings(cell: Cell) -> str:
    return cell.config.to_json() + "\n"


def _start(root: Path, cell: Cell, slot: int, jobs: int) -> subprocess.Popen[bytes]:
    directory = cell_dir(root, cell)
    if _begun(directory, cell):
        (directory / DONE).unlink(missing_ok=True)
    else:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        atomic_write_text(directory / SETTINGS, _settings(cell))
    # Cells that differ in their seed alone are one program; a cache for each slot, so that no two write one.
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str((root / CACHE / str(slot)).absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes may share an accelerator
    with (directory / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _FIRST.format(parent=os.getpid(), cores=_cores(slot, jobs)) + _CELL, str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the grid alone, which then ends its cells
        )


def _begun(directory: Path, cell: Cell) -> bool:
    """Whether a cell has a run, with the same settings, that did not fail of itself."""
    try:
        if (directory / SETTINGS).read_text() != _settings(cell) or not (directory / RUN / CONFIG).exists():
            return False
        if not (directory / DONE).exists():
            return True
        end = json.loads((directory / DONE).read_text())
        return end["status"] == "failed" and end.get("killed", False)
    except (OSError, ValueError, TypeError, KeyError):
        return False


# What every child does before it imports anything: the cores are set before JAX counts them, and its parent is watched
# from the first moment on, so that a grid that is killed leaves no cell behind.
_FIRST = """
import os, threading, time

def end_with(parent):
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)

try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)  # on Linux the system does it, even where a cell hangs in C
except (ImportError, OSError, AttributeError):
    pass
threading.Thread(target=end_with, args=({parent},), daemon=True).start()
if {cores} and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {cores})
"""
_CELL = """
import runpy
runpy.run_module("memoroids.experiments.cell", run_name="__main__", alter_sys=True)
"""


def _cores(slot: int, jobs: int) -> list[int]:
    """The processor cores of a slot, equally many for each; none to choose where there are fewer than jobs."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // jobs
    return cores[slot * share : (slot + 1) * share]


def _last_line(root: Path, cell: Cell, code: int) -> str:
    lines = (cell_dir(root, cell) / LOG).read_text(errors="replace").splitlines()
    said = next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")
    return f"exit status {code}: {said}"


def _share(root: Path, cell: Cell) -> float:
    """How much of a running cell is done, by its metrics."""
    try:
        rows = read(cell_dir(root, cell) / RUN / METRICS)
    except (ValueError, OSError):
        return 0.0
    return cell.config.share_done(int(rows[-1]["episode"]), int(rows[-1]["env_steps"])) if rows else 0.0


def _progress(
    root: Path,
    done: int,
    failed: int,
    cells: Sequence[Cell],
    running: list[_Process],
    waiting: list[tuple[Cell, int]],
    spent: list[float],
    jobs: int,
    news: str | None,
) -> GridProgress:
    shares = [(process.cell, _share(root, process.cell)) for process in running]
    left = None
    if spent:
        rest = len(waiting) + sum(1 - share for _, share in shares)
        left = sum(spent) / len(spent) * rest / jobs
    return GridProgress(done, failed, len(cells), shares, left, news)


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[None]:
    with (root / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"another process runs the grid in {root}: wait for it, or choose another --output"
            ) from error
        yield


@contextlib.contextmanager
def _terminating(running: list[_Process]) -> Iterator[None]:
    """Ends the cells under way where the grid ends, however that comes; SIGTERM is taken as Ctrl-C."""

    def interrupt(number: Any, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in running:
            process.popen.kill()
        for process in running:
            process.popen.wait()
