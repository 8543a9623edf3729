"""A run directory: the names of its files, and a finished or interrupted run read back from it."""

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from memoroids.runs import checkpoint
from memoroids.runs import metrics
from memoroids.acting.evaluation import Evaluation
from memoroids.runs.checkpoint import CheckpointError
from memoroids.runs.settings import TrainConfig
from memoroids.runs.build import REPORT, Parts, build, environment_seeds

CONFIG, METRICS, CURVE, SUMMARY, CHECKPOINTS = "config.json", "metrics.csv", "curve.png", "summary.json", "checkpoints"
WARNINGS, LOCK = "warnings.txt", "lock"
SENSITIVITY, HEATMAP = "sensitivity_training.csv", "sensitivity_training.png"


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Holds a run directory, made where there is none, so that no other process writes to it.

    The system lets go of it when the process ends, however it ends. Raises `ValueError` with the other's id and start
    where one holds it, or where it cannot be written to. Where nothing else was written, nothing of it stays.
    """
    path = run_dir / LOCK
    made = [directory for directory in (run_dir, *run_dir.parents) if not directory.exists()]
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise ValueError(f"cannot write to {run_dir}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ValueError(f"{run_dir} is being written by {holder}: wait for it, or stop it") from error
        except OSError as error:
            raise ValueError(f"cannot lock {path}: {error.strerror} (choose a --run-dir on another disk)") from error
        try:
            try:
                file.truncate(0)
                file.write(f"process {os.getpid()}, started {datetime.now().isoformat(timespec='seconds')}\n")
                file.flush()
            except OSError as error:
                with contextlib.suppress(OSError):
                    file.close()  # which would try once more
                raise ValueError(f"cannot write to {run_dir}: {error.strerror}") from error
            yield
        finally:
            if os.listdir(run_dir) == [LOCK]:
                path.unlink()
                for directory in made:
                    with contextlib.suppress(OSError):  # not empty: another run's
                        directory.rmdir()


def seed_dir(run_dir: Path, seed: int) -> Path:
    """Where one of several seeds is written, a run directory of its own."""
    return run_dir / f"seed{seed}"


def load(run_dir: Path, *, best: bool = False) -> tuple[TrainConfig, Parts, Any]:
    """Settings, parts and newest parameters of a run, or those of its `best` evaluation.

    Imports and calls what `TrainConfig.own_code` names, as the commands do only where they are told to trust a run.
    Raises `ValueError` or `CheckpointError`.
    """
    config = load_config(run_dir)
    if config.seeds > 1:
        raise ValueError(f"{run_dir} holds {config.seeds} runs: name one, as {seed_dir(run_dir, config.seed)}")
    parts = build(config)
    path = checkpoint.newest_good(
        run_dir / CHECKPOINTS, lambda error: print(f"memoroids: {error}", file=sys.stderr), asdict(config)
    )
    if path is None:
        raise CheckpointError(f"no checkpoint in {run_dir / CHECKPOINTS}")
    learner = parts.algorithm.init(parts.network)
    if not best:
        return config, parts, checkpoint.restore(path, "learner", learner).params
    if checkpoint.counters(path)["best"] is None:
        raise ValueError(f"{run_dir} has no best parameters: it was not evaluated before its newest checkpoint")
    return config, parts, checkpoint.restore(path, "best", learner.params)


def load_config(run_dir: Path) -> TrainConfig:
    """The settings of a run. Raises `ValueError` where `run_dir` holds none that can be read."""
    path = run_dir / CONFIG
    try:
        return TrainConfig.from_json(path.read_text())
    except OSError as error:
        raise ValueError(f"{run_dir} holds no run: {path} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_rows(run_dir: Path) -> list[dict[str, float]]:
    """The metrics of a run. Raises `ValueError` where they cannot be read."""
    try:
        return metrics.read(run_dir / METRICS)
    except OSError as error:
        raise ValueError(f"{run_dir} holds no metrics: {METRICS} cannot be read ({error.strerror})") from error


def read_summary(run_dir: Path) -> dict[str, Any] | None:
    """The summary of a finished run, None of an unfinished one. Raises `ValueError` where it cannot be read."""
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


def evaluate_run(run_dir: Path, episodes: int, seed: int, *, best: bool = False) -> Evaluation:
    """Greedy episodes with a run's newest or `best` parameters on fresh environment seeds, apart from the run's own."""
    config, parts, params = load(run_dir, best=best)
    try:
        return parts.evaluator(params, episodes, environment_seeds(config.seed, REPORT, seed))
    finally:
        parts.close()
