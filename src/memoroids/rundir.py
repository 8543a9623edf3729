"""A run directory: the names of its files, and a finished or interrupted run read back from it."""

import json
from pathlib import Path
from typing import Any

from memoroids import checkpoint, metrics
from memoroids.config import TrainConfig
from memoroids.evaluate import Evaluation
from memoroids.parts import REPORT, Parts, build, environment_seeds

CONFIG, METRICS, CURVE, SUMMARY, CHECKPOINTS = "config.json", "metrics.csv", "curve.png", "summary.json", "checkpoints"
SENSITIVITY, HEATMAP = "sensitivity_training.csv", "sensitivity_training.png"


def seed_dir(run_dir: Path, seed: int) -> Path:
    """Where one of several seeds is written, a run directory of its own."""
    return run_dir / f"seed{seed}"


def load(run_dir: Path) -> tuple[TrainConfig, Parts, Any]:
    """Settings, parts and newest parameters of a run. Raises `ValueError` or `CheckpointError`."""
    config = load_config(run_dir)
    if config.seeds > 1:
        raise ValueError(f"{run_dir} holds {config.seeds} runs: name one, as {seed_dir(run_dir, config.seed)}")
    parts = build(config)
    path = checkpoint.latest(run_dir / CHECKPOINTS)
    checkpoint.counters(path)  # digests
    learner = checkpoint.restore(path, "learner", parts.algorithm.init(parts.network))
    return config, parts, learner.params


def load_config(run_dir: Path) -> TrainConfig:
    """The settings of a run. Raises `ValueError` where `run_dir` holds none that can be read."""
    path = run_dir / CONFIG
    try:
        return TrainConfig.from_json(path.read_text())
    except OSError as error:
        raise ValueError(f"{run_dir} holds no run: {path} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError) as error:
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
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def evaluate_run(run_dir: Path, episodes: int, seed: int) -> Evaluation:
    """Greedy episodes with a run's newest parameters on fresh environment seeds, apart from the run's own."""
    config, parts, params = load(run_dir)
    return parts.evaluator(params, episodes, environment_seeds(config.seed, REPORT, seed))
