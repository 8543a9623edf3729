"""Loads a run from its directory: its settings, its parts and its parameters."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memoroids.acting.evaluation import Evaluations
from memoroids.runs import checkpoint
from memoroids.runs.build import ActingParts, DeviceParts, HostParts, build, build_acting
from memoroids.runs.checkpoint import CheckpointError
from memoroids.runs.run_directory import CHECKPOINTS, load_config, seed_dir
from memoroids.runs.seeds import REPORT, environment_seeds
from memoroids.runs.settings import TrainConfig


def load(run_dir: Path, *, best: bool = False) -> tuple[TrainConfig, HostParts | DeviceParts, Any]:
    """Loads the settings, parts and newest parameters of a run; with `best`, the parameters of its best evaluation.

    It imports and calls the code that `TrainConfig.own_code` names; the commands do so only for runs that they are told
    to trust. Raises `ValueError` if the settings cannot be read, if the run has several seeds, or if it has no best
    parameters, and `CheckpointError` if no checkpoint can be read.
    """
    config = _config_of_one(run_dir)
    parts = build(config)
    return config, parts, _parameters(run_dir, config, parts, best=best)


def load_acting(run_dir: Path, *, best: bool = False, untrained: bool = False) -> tuple[TrainConfig, ActingParts, Any]:
    """As `load`, with the parts that act alone; with `untrained`, the parameters with which training began."""
    config = _config_of_one(run_dir)
    parts = build_acting(config)
    if untrained:
        return config, parts, parts.agent.init(parts.network).params
    return config, parts, _parameters(run_dir, config, parts, best=best)


def _config_of_one(run_dir: Path) -> TrainConfig:
    """The settings of a run of one seed. Raises `ValueError`."""
    config = load_config(run_dir)
    if config.placement.seeds > 1:
        one = seed_dir(run_dir, config.seed)
        raise ValueError(f"{run_dir} holds {config.placement.seeds} runs: name one, as {one}")
    return config


def _parameters(run_dir: Path, config: TrainConfig, parts: HostParts | DeviceParts | ActingParts, *, best: bool) -> Any:
    """The newest or the best parameters of a run. Raises `ValueError` and `CheckpointError`, see `load`."""
    path = checkpoint.newest_good(
        run_dir / CHECKPOINTS, lambda error: print(f"memoroids: {error}", file=sys.stderr), asdict(config)
    )
    if path is None:
        raise CheckpointError(f"no checkpoint in {run_dir / CHECKPOINTS}")
    learner = parts.agent.init(parts.network)
    if not best:
        return checkpoint.restore(path, "learner", learner).params
    if checkpoint.counters(path)["best"] is None:
        raise ValueError(f"{run_dir} has no best parameters: it was not evaluated before its newest checkpoint")
    return checkpoint.restore(path, "best", learner.params)


def evaluate_run(run_dir: Path, episodes: int, seed: int, *, best: bool = False) -> Evaluations:
    """Evaluates a run's newest or `best` parameters on `episodes` environment seeds that the run did not use."""
    config, parts, params = load(run_dir, best=best)
    try:
        return parts.evaluator(params, episodes, environment_seeds(config.seed, REPORT, seed))
    finally:
        parts.close()
