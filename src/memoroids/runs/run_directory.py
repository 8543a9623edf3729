"""A run directory: the names of its files, its lock, and reading its settings, metrics and summary."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from memoroids._util.locks import Held, exclusive
from memoroids.runs import metrics
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import from_json

CONFIG, METRICS, CURVE, SUMMARY, CHECKPOINTS = "config.json", "metrics.csv", "curve.png", "summary.json", "checkpoints"
WARNINGS, LOCK, BASELINE, TRACKED = "warnings.txt", "lock", "baseline.json", "trackers.json"
SENSITIVITY, HEATMAP = "sensitivity_training.csv", "sensitivity_training.png"


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Locks a run directory, so that no other process writes to it, and creates it if necessary.

    The system releases the lock when the process ends, even if it is killed. If nothing else was written to the
    directory, it is removed again. Raises `ValueError` if another process holds the lock, naming its id and start time,
    or if the directory cannot be written to.
    """
    path = run_dir / LOCK
    made = [directory for directory in (run_dir, *run_dir.parents) if not directory.exists()]
    with ExitStack() as stack:
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(path))
        except Held as held:
            raise ValueError(f"{run_dir} is being written by {held}: wait for it, or stop it") from held
        except OSError as error:
            raise ValueError(f"cannot write to {run_dir}: {error.strerror} (--run-dir chooses another)") from error
        try:
            yield
        finally:
            if os.listdir(run_dir) == [LOCK]:
                for remove in (path.unlink, *(directory.rmdir for directory in made)):
                    with contextlib.suppress(OSError):  # not empty: it holds another run
                        remove()


def seed_dir(run_dir: Path, seed: int) -> Path:
    """The directory of one seed of a run with several seeds; it is itself a run directory."""
    return run_dir / f"seed{seed}"


def is_seed_dir(run_dir: Path) -> bool:
    """Whether a directory has the name of one seed's, see `seed_dir`."""
    return re.fullmatch(r"seed\d+", run_dir.name) is not None


def load_config(run_dir: Path) -> TrainConfig:
    """Reads the settings of a run. Raises `ValueError` if they are missing or invalid."""
    path = run_dir / CONFIG
    try:
        return from_json(path.read_text())
    except OSError as error:
        raise ValueError(f"{run_dir} holds no run: {path} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_rows(run_dir: Path) -> list[dict[str, float]]:
    """Reads the metrics of a run. Raises `ValueError` if they are missing or invalid."""
    try:
        return metrics.read(run_dir / METRICS)
    except OSError as error:
        raise ValueError(f"{run_dir} holds no metrics: {METRICS} cannot be read ({error.strerror})") from error


def read_summary(run_dir: Path) -> dict[str, Any] | None:
    """Reads the summary of a run; None if the run is unfinished. Raises `ValueError` if it is invalid."""
    path = run_dir / SUMMARY
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_text())
        if not isinstance(summary, dict):
            raise ValueError(f"a summary is a JSON object, got {type(summary).__name__}")
        return summary
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
