"""What a run reports: a row of metrics for each evaluation, in a CSV file, a curve, and on request elsewhere."""

import csv
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FIELDS: tuple[str, ...] = (
    "episode",  # training episodes
    "env_steps",  # environment steps, the random ones counted
    "updates",
    "transitions",  # real transitions in all batches
    "slots",  # slots in all batches, padding and final observations counted
    "loss",
    "td_error",  # mean absolute error of the values
    "q_mean",  # mean value of the states; a policy's, where it has no action values
    "grad_norm",
    "epsilon",
    "train_return",  # mean over the training episodes since the last row
    "eval_return",  # mean over the greedy episodes of this row
    "skipped",  # updates skipped for a non-finite loss or gradient
    "steps_per_s",
    "seconds",
)
"""The columns of metrics.csv."""

MEANS: tuple[str, ...] = ("loss", "td_error", "q_mean", "grad_norm")
"""The columns that are means over the updates since the last row."""


class MetricsFile:
    """metrics.csv of a run directory: one row at a time, each on disk at once.

    The first `keep` rows of a file that is there stay, later ones go. Raises `ValueError` where it holds fewer.
    """

    def __init__(self, path: Path, keep: int = 0):
        self.rows = read(path, keep) if keep else []
        if len(self.rows) < keep:
            raise ValueError(f"{path} holds {len(self.rows)} rows, its checkpoint was written after {keep}")
        # Beside the old file until it is whole, so that nothing is lost in between.
        fresh = path.with_suffix(".partial")
        with fresh.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)
        fresh.replace(path)
        self._file = path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, FIELDS)

    def write(self, row: dict[str, float]) -> None:
        """Adds a row; raises `ValueError` where its columns are not `FIELDS`."""
        if set(row) != set(FIELDS):
            raise ValueError(f"a row of metrics has the columns {', '.join(FIELDS)}, got {', '.join(row)}")
        self._writer.writerow(row)
        self._file.flush()
        self.rows.append(row)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read(path: Path, limit: int | None = None) -> list[dict[str, float]]:
    """The rows of a metrics.csv, at most `limit`. Raises `ValueError` naming the file and the line that is not ours."""
    if not path.exists():
        raise ValueError(f"{path} is missing")
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise ValueError(f"{path}: the header is not that of this version's metrics files")
        rows = []
        for line, row in enumerate(reader, start=2):
            if limit is not None and len(rows) == limit:
                break
            if None in row or None in row.values():
                raise ValueError(f"{path}: line {line} does not have {len(FIELDS)} values")
            try:
                rows.append({name: float(row[name]) for name in FIELDS})
            except ValueError as error:
                raise ValueError(f"{path}: line {line}: {error}") from error
    return rows


def draw_curve(path: Path, rows: Sequence[dict[str, float]], title: str) -> None:
    """The learning curve: greedy evaluation return, and the training episodes' own, against training episodes."""
    lines = {"training, exploring": ("train_return", rows), "evaluation, greedy": ("eval_return", rows)}
    _draw(path, lines, title, "return")


def draw_comparison(path: Path, runs: Mapping[str, Sequence[dict[str, float]]], title: str) -> None:
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
    if len(lines) > 3:
        figure.set_size_inches(9, 4)
        figure.legend(frameon=False, loc="outside right upper")  # where it covers no curve
    else:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


class Loggers:
    """TensorBoard and Weights & Biases, where asked for. Raises `ValueError` where the extra is not installed."""

    def __init__(self, run_dir: Path, config: dict[str, Any], *, tensorboard: bool, wandb: bool):
        self._tensorboard = self._wandb = None
        modules = [_extra(name) for name, wanted in (("tensorboardX", tensorboard), ("wandb", wandb)) if wanted]
        # Only now is anything written: a run without its loggers must not claim a directory.
        if tensorboard:
            self._tensorboard = modules[0].SummaryWriter(str(run_dir / "tensorboard"))
        if wandb:
            run_dir.mkdir(parents=True, exist_ok=True)
            self._wandb = modules[-1].init(project="memoroids", dir=str(run_dir), config=config)

    def write(self, row: dict[str, float]) -> None:
        """Sends a row on."""
        if self._tensorboard is not None:
            for name, value in row.items():
                self._tensorboard.add_scalar(name, value, int(row["episode"]))
        if self._wandb is not None:
            self._wandb.log(row, step=int(row["episode"]))

    def close(self) -> None:
        """Writes what is left."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def _extra(module: str) -> Any:
    name = module.removesuffix("X").lower()
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"--{name} needs the extra: pip install 'memoroids[{name}]'") from error
