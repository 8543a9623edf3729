"""A run of several seeds: a run directory for each of them within one, and what is said of all together."""

from collections.abc import Sequence
from pathlib import Path

from memoroids.acting.evaluation import Evaluations
from memoroids.runs.baseline import mean_baseline
from memoroids.runs.metrics import mean_rows
from memoroids.runs.plots import draw_comparison
from memoroids.runs.progress import Outcome
from memoroids.runs.run_directory import CURVE, seed_dir
from memoroids.runs.settings import TrainConfig


def seed_configs(config: TrainConfig) -> list[TrainConfig]:
    """The settings of each seed, those of a run of that seed alone."""
    return [config.replace(seed=config.seed + i, seeds=1, devices=1) for i in range(config.placement.seeds)]


def seed_dirs(config: TrainConfig, run_dir: Path) -> list[Path]:
    """The run directory of each seed within `run_dir`; none for a run of one seed, which is `run_dir` itself."""
    number = config.placement.seeds
    return [seed_dir(run_dir, config.seed + i) for i in range(number)] if number > 1 else []


def joined(config: TrainConfig, run_dir: Path, outcomes: Sequence[Outcome], directory: Path) -> Outcome:
    """The outcome of a run from those of its seeds, whose learning curves are drawn to `directory`.

    The final evaluations are joined once every seed has one; the rows are means over the seeds that have any.
    """
    curves = {f"seed {outcome.config.seed}": [outcome.rows] for outcome in outcomes if outcome.rows}
    if curves:
        what = f"{config.env.id}, {config.network.memory}, {config.placement.seeds} seeds"
        draw_comparison(
            directory / CURVE,
            curves,
            f"{what}: {config.evaluation.way} evaluation during training",
            f"return of {config.evaluation.way} episodes",
            random=mean_baseline(seed_dir(directory, outcome.config.seed) for outcome in outcomes),
        )
    finals = [outcome.finals for outcome in outcomes if outcome.finals is not None]
    finished = len(finals) == config.placement.seeds
    rows = mean_rows([rows for (rows,) in curves.values()])
    return Outcome(Evaluations.joined(finals) if finished else None, rows, run_dir, config, tuple(outcomes))
