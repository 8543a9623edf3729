"""A process that runs cells of a grid, as its parent sees it: their files before it starts, and how it ended."""

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memoroids._util.files import atomic_write_text
from memoroids._util.locks import Held, exclusive
from memoroids.experiments.cell import DONE, RUN, SETTINGS
from memoroids.experiments.cell_launch import LOG
from memoroids.experiments.executors import Handle
from memoroids.experiments.grid import Cell
from memoroids.runs.metrics import read
from memoroids.runs.run_directory import CONFIG, LOCK, METRICS
from memoroids.runs.settings_file import from_json, to_json

CELLS, CACHE = "cells", "cache"


@dataclass
class CellProcess:
    """A process and the cells that it runs, the slot whose cores and cache it uses, the attempt, and its start time."""

    cells: tuple[Cell, ...]
    handle: Handle
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
        if not _same((directory / SETTINGS).read_text(), cell):
            return None
        end = json.loads((directory / DONE).read_text())
        needed = {"done": "seconds", "failed": "reason"}
        return end if isinstance(end, dict) and needed.get(end.get("status", "")) in end else None
    except (OSError, ValueError, TypeError):
        return None


def make_ready(root: Path, cells: Sequence[Cell]) -> list[Path]:
    """Prepares the directories of cells that are to be run by one process. Returns them.

    A cell that was interrupted keeps its files, to resume from its newest checkpoint; any other has an empty directory.
    What the process prints is the log of each.
    """
    directories = [cell_dir(root, cell) for cell in cells]
    for directory, cell in zip(directories, cells, strict=True):
        if (directory / LOG).is_symlink():  # it was one of several cells of a process
            (directory / LOG).unlink()
        if _resumable(directory, cell):
            (directory / DONE).unlink(missing_ok=True)
        else:
            # A process that was believed dead may hold the lock of the run: its files are left to it, and the cell,
            # which cannot get the lock, is tried again.
            with contextlib.suppress(Held), contextlib.ExitStack() as stack:
                if (directory / RUN / LOCK).exists():
                    stack.enter_context(exclusive(directory / RUN / LOCK))
                shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True, exist_ok=True)
            atomic_write_text(directory / SETTINGS, to_json(cell.config) + "\n")
    for directory in directories[1:]:
        (directory / LOG).unlink(missing_ok=True)
        (directory / LOG).symlink_to(os.path.relpath(directories[0] / LOG, directory))
    return directories


def _same(settings: str, cell: Cell) -> bool:
    """Whether settings in a file are those of a cell; neither imports an agent of the user's own."""
    return from_json(settings) == from_json(to_json(cell.config))


def _resumable(directory: Path, cell: Cell) -> bool:
    """Whether a cell has a run with the same settings that did not fail by itself."""
    try:
        if not _same((directory / SETTINGS).read_text(), cell) or not (directory / RUN / CONFIG).exists():
            return False
        if not (directory / DONE).exists():
            return True
        end = json.loads((directory / DONE).read_text())
        return end["status"] == "failed" and end.get("killed", False)
    except (OSError, ValueError, TypeError, KeyError):
        return False


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
