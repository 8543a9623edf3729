"""What a run reports: a row of metrics for each evaluation, in a CSV file, a curve, and on request elsewhere."""

import contextlib
import csv
import importlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memoroids._util.files import atomic_write

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

    The first `keep` bytes of a file that is there stay as they are, what comes after them goes. Raises `ValueError`
    where there are fewer, or where they are not whole rows.
    """

    def __init__(self, path: Path, keep: int = 0):
        self._path = path
        self.rows = []
        if keep:
            if not path.exists():
                raise ValueError(f"{path} is missing")
            if (size := path.stat().st_size) < keep:
                raise ValueError(f"{path} holds {size} bytes, its checkpoint was written after {keep}")
            with path.open("rb+") as file:
                kept = file.read(keep)
                self.rows = _rows(path, kept)
                if not kept.endswith(b"\n"):
                    raise ValueError(f"{path}: no line ends after {keep} bytes, where its checkpoint was written")
                file.truncate(keep)
        self._file = path.open("a" if keep else "w", newline="")
        self._writer = csv.DictWriter(self._file, FIELDS)
        if not keep:
            self._put(self._writer.writeheader)

    @property
    def size(self) -> int:
        """Bytes written so far, in whole rows."""
        return self._file.tell()

    def _put(self, write: Callable[[], Any]) -> None:
        try:
            write()
            self._file.flush()
        except OSError as error:
            self.close()
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def write(self, row: dict[str, float]) -> None:
        """Adds a row; raises `ValueError` where its columns are not `FIELDS`."""
        if set(row) != set(FIELDS):
            raise ValueError(f"a row of metrics has the columns {', '.join(FIELDS)}, got {', '.join(row)}")
        self._put(lambda: self._writer.writerow(row))
        self.rows.append(row)

    def sync(self) -> None:
        """Puts what was written on disk: a checkpoint counts on it, even where the machine stops."""
        self._put(lambda: os.fsync(self._file.fileno()))

    def close(self) -> None:
        """Closes the file; what is written is written already."""
        with contextlib.suppress(OSError):  # that a row could not be written was said
            self._file.close()


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv. Raises `ValueError` naming the file and the line that is not ours."""
    if not path.exists():
        raise ValueError(f"{path} is missing")
    return _rows(path, path.read_bytes())


def _rows(path: Path, content: bytes) -> list[dict[str, float]]:
    try:
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""))
        header, found = tuple(reader.fieldnames or ()), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no file of metrics: {error}") from error
    if header != FIELDS:
        raise ValueError(f"{path}: the header is not that of this version's metrics files")
    rows = []
    for line, row in enumerate(found, start=2):
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
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120, format=path.suffix.removeprefix(".") or "png")


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
