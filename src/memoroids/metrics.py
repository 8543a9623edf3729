"""What a run reports: a row of metrics for each evaluation, in a CSV file, a curve, and on request elsewhere."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FIELDS: tuple[str, ...] = (
    "episode",  # training episodes
    "env_steps",  # environment steps, the random ones counted
    "updates",
    "transitions",  # real transitions in all batches
    "loss",
    "td_error",
    "q_mean",
    "grad_norm",
    "epsilon",
    "train_return",  # mean over the training episodes since the last row
    "eval_return",  # mean over the greedy episodes of this row
    "skipped",  # updates skipped for a non-finite loss or gradient
    "steps_per_s",
    "seconds",
)
"""The columns of metrics.csv."""


class MetricsFile:
    """metrics.csv of a run directory: one row at a time, each flushed. `keep` rows are kept, later ones cut off."""

    def __init__(self, path: Path, keep: int = 0):
        rows = read(path)[:keep] if path.exists() else []
        self._file = path.open("w", newline="")
        self._writer = csv.DictWriter(self._file, FIELDS)
        self._writer.writeheader()
        self.rows: list[dict[str, float]] = []
        for row in rows:
            self.write(row)

    def write(self, row: dict[str, float]) -> None:
        """Adds a row; raises `ValueError` where its columns are not `FIELDS`."""
        self._writer.writerow(row)
        self._file.flush()
        self.rows.append(row)

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv. Raises `ValueError` naming the line that is not one of ours."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise ValueError(f"{path}: the header is not that of a metrics file")
        rows = []
        for line, row in enumerate(reader, start=2):
            try:
                rows.append({name: float(row[name]) for name in FIELDS})
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}: line {line}: {error}") from error
    return rows


def draw_curve(path: Path, rows: Sequence[dict[str, float]], title: str) -> None:
    """The learning curve: greedy evaluation return, and the training episodes' own, against training episodes."""
    lines = {"training, exploring": ("train_return", rows), "evaluation, greedy": ("eval_return", rows)}
    _draw(path, lines, title, "return")


def draw_comparison(path: Path, runs: dict[str, Sequence[dict[str, float]]], title: str) -> None:
    """The greedy evaluation returns of several runs, label → rows, against training episodes."""
    lines = {label: ("eval_return", rows) for label, rows in runs.items()}
    _draw(path, lines, title, "return of greedy episodes")


def _draw(path: Path, lines: dict[str, tuple[str, Sequence[dict[str, float]]]], title: str, what: str) -> None:
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for label, (column, rows) in lines.items():
        # What was explored is context for what was learned.
        color, width = ("0.6", 1.0) if column == "train_return" else (None, 2.0)
        episodes, values = [row["episode"] for row in rows], [row[column] for row in rows]
        axes.plot(episodes, values, label=label, color=color, linewidth=width)
    axes.set_xlabel("training episodes")
    axes.set_ylabel(what)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


class Loggers:
    """TensorBoard and Weights & Biases, where asked for. Raises `ValueError` where the extra is not installed."""

    def __init__(self, run_dir: Path, config: dict[str, Any], *, tensorboard: bool, wandb: bool):
        self._tensorboard = self._wandb = None
        if tensorboard:
            try:
                from tensorboardX import SummaryWriter
            except ImportError as error:
                raise ValueError("--tensorboard needs the extra: pip install 'memoroids[tensorboard]'") from error
            self._tensorboard = SummaryWriter(str(run_dir / "tensorboard"))
        if wandb:
            try:
                import wandb as weights_and_biases  # pyright: ignore[reportMissingImports]
            except ImportError as error:
                raise ValueError("--wandb needs the extra: pip install 'memoroids[wandb]'") from error
            self._wandb = weights_and_biases.init(project="memoroids", dir=str(run_dir), config=config)

    def write(self, row: dict[str, float]) -> None:
        if self._tensorboard is not None:
            for name, value in row.items():
                self._tensorboard.add_scalar(name, value, int(row["episode"]))
        if self._wandb is not None:
            self._wandb.log(row, step=int(row["episode"]))

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()
