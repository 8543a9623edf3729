"""The process that runs cells of a grid, as its parent sees it: their files, its start and how it ended."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memoroids._util.files import atomic_write_text
from memoroids.experiments.cell import DONE, LOG, RUN, SETTINGS
from memoroids.experiments.grid import Cell
from memoroids.runs.metrics import read
from memoroids.runs.run_directory import CONFIG, METRICS
from memoroids.runs.settings_file import from_json, to_json

CELLS, CACHE = "cells", "cache"


@dataclass
class CellProcess:
    """A process and the cells that it runs, the slot whose cores and cache it uses, the attempt, and its start time."""

    cells: tuple[Cell, ...]
    popen: subprocess.Popen[bytes]
    slot: int
    tries: int
    started: float


def cell_dir(root: Path, cell: Cell) -> Path:
    """The directory of a cell's files."""
    return root / CELLS / cell.name


def status(root: Path, cell: Cell) -> dict[str, Any] | None:
    """A cell's result, {"status": "done" | "failed", …}; None if it has not ended or was run with other settings."""
    directory = cell_dir(root, cell)
    try:
        if from_json((directory / SETTINGS).read_text()) != cell.config:
            return None
        end = json.loads((directory / DONE).read_text())
        needed = {"done": "seconds", "failed": "reason"}
        return end if isinstance(end, dict) and needed.get(end.get("status", "")) in end else None
    except (OSError, ValueError, TypeError):
        return None


def start(
    root: Path, cells: Sequence[Cell], slot: int, jobs: int, *, cache: Path | None = None
) -> subprocess.Popen[bytes]:
    """Starts the process of these cells, with the cores and the compilation cache of its slot, one of `jobs`.

    `cache`: another directory for what is compiled, which no other process writes to.

    A cell that was interrupted resumes from its newest checkpoint; any other starts with an empty directory. What the
    process prints is written to the log of each.
    """
    directories = [cell_dir(root, cell) for cell in cells]
    for directory, cell in zip(directories, cells, strict=True):
        if _resumable(directory, cell):
            (directory / DONE).unlink(missing_ok=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            atomic_write_text(directory / SETTINGS, to_json(cell.config) + "\n")
    log_path = directories[0] / LOG
    for directory in directories[1:]:
        (directory / LOG).unlink(missing_ok=True)
        (directory / LOG).symlink_to(os.path.relpath(log_path, directory))
    # Cells that differ only in their seed compile to the same program. Each slot has a cache of its own, because two
    # processes must not write to the same cache.
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str((cache or root / CACHE / str(slot)).absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # processes may share an accelerator
    program = _PREAMBLE.format(parent=os.getpid(), cores=cores_of(slot, jobs)) + CELL_PROGRAM
    with log_path.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", program, *map(str, directories)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the grid only, which then ends its cells
        )


def _resumable(directory: Path, cell: Cell) -> bool:
    """Whether a cell has a run with the same settings that did not fail by itself."""
    try:
        same = from_json((directory / SETTINGS).read_text()) == cell.config
        if not same or not (directory / RUN / CONFIG).exists():
            return False
        if not (directory / DONE).exists():
            return True
        end = json.loads((directory / DONE).read_text())
        return end["status"] == "failed" and end.get("killed", False)
    except (OSError, ValueError, TypeError, KeyError):
        return False


# Every child runs this before it imports anything: the cores must be set before JAX counts them, and the child must
# watch its parent from the start, so that no cell outlives a grid that is killed.
_PREAMBLE = """
import os, threading, time

def end_with(parent):
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)

try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)  # on Linux the kernel kills it, even if it hangs in C code
except (ImportError, OSError, AttributeError):
    pass
threading.Thread(target=end_with, args=({parent},), daemon=True).start()
if {cores} and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {cores})
"""
CELL_PROGRAM = """
import runpy
runpy.run_module("memoroids.experiments.cell", run_name="__main__", alter_sys=True)
"""
"""The Python program of a process that runs cells; its arguments are their directories."""


def cores_of(slot: int, jobs: int) -> list[int]:
    """The processor cores of a slot, equally many for each; empty (no restriction) with fewer cores than jobs."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // jobs
    return cores[slot * share : (slot + 1) * share]


def failure_reason(root: Path, cell: Cell, code: int) -> str:
    """Why a cell failed that wrote no result: its exit status and the last line of its log."""
    lines = (cell_dir(root, cell) / LOG).read_text(errors="replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return f"exit status {code}: {last}"


def share_done(root: Path, cell: Cell) -> float:
    """The fraction of a running cell that is done, according to its metrics."""
    try:
        rows = read(cell_dir(root, cell) / RUN / METRICS)
    except (ValueError, OSError):
        return 0.0
    return cell.config.budget.share_done(int(rows[-1]["episode"]), int(rows[-1]["env_steps"])) if rows else 0.0
