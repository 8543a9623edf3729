"""metrics.csv: one row for each evaluation during training."""

import contextlib
import csv
import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FIELDS: tuple[str, ...] = (
    "episode",  # training episodes
    "env_steps",  # environment steps, including those of random episodes
    "updates",
    "transitions",  # transitions in all batches so far
    "slots",  # slots in all batches so far, including padding and final observations
    "loss",
    "td_error",  # mean absolute TD error
    "q_mean",  # mean action value, or mean state value for algorithms without action values
    "grad_norm",
    "explained_variance",  # of the values: 1 - Var(target - value) / Var(target), at least -1
    "entropy",  # of the policy, in nats
    "kl",  # KL divergence of the policy from that with which the rollout was collected
    "clipped",  # share of the transitions whose ratio of probabilities is past the clipping
    "policy_grad",  # how strongly the policy's loss pulls at the features that it shares with the value
    "value_grad",  # the same of the value's loss
    "epsilon",  # nan for an agent that does not explore by it
    "train_return",  # mean over the training episodes since the previous row
    "eval_return",  # mean over the episodes of this evaluation that counts: eval_greedy or eval_sampled
    "eval_greedy",  # mean over its greedy episodes
    "eval_sampled",  # mean over its episodes sampled from the policy; nan for an agent without such a policy
    "skipped",  # updates skipped so far because of a non-finite loss or gradient
    "env_seconds",  # in the environments since the previous row, evaluations left out; nan for device runs, as the next
    "policy_seconds",  # in choosing actions
    "update_seconds",  # in updates
    "steps_per_s",
    "seconds",
)
"""The columns of metrics.csv."""

LOSSES: tuple[str, ...] = ("explained_variance", "entropy", "kl", "clipped", "policy_grad", "value_grad")
"""The columns that only some agents measure."""

SPENT: tuple[str, ...] = ("env_seconds", "policy_seconds", "update_seconds")
"""The columns that say what a host run spent its time on."""

TIMES: tuple[str, ...] = (*SPENT, "steps_per_s", "seconds")
"""The columns in which two runs of the same settings differ."""

ABSENT: tuple[str, ...] = (*LOSSES, "epsilon", "eval_sampled", *SPENT)
"""The columns that are NaN for agents or runs without such a thing."""

MEANS: tuple[str, ...] = ("loss", "td_error", "q_mean", "grad_norm", *LOSSES)
"""The columns that are means over the updates since the previous row."""


class MetricsFile:
    """The metrics.csv of a run directory, written and flushed one row at a time.

    The first `keep` bytes of an existing file are kept and the rest is cut off. Raises `ValueError` if the file is
    shorter than that, or if these bytes are not complete rows.
    """

    def __init__(self, path: Path, keep: int = 0):
        self._path = path
        self.rows = []
        if keep:
            if not path.exists():
                raise ValueError(f"{path} is missing")
            if (size := path.stat().st_size) < keep:
                raise ValueError(f"{path} holds {size} bytes, but at its checkpoint it held {keep}")
            with path.open("rb+") as file:
                kept = file.read(keep)
                self.rows = _rows(path, kept)
                if not kept.endswith(b"\n"):
                    raise ValueError(
                        f"{path}: the {keep} bytes that it held at its checkpoint do not end with a complete line"
                    )
                file.truncate(keep)
        self._file = path.open("a" if keep else "w", newline="")
        self._writer = csv.DictWriter(self._file, FIELDS)
        if not keep:
            self._put(self._writer.writeheader)

    @property
    def size(self) -> int:
        """The size of the file in bytes; it ends with a complete row."""
        return self._file.tell()

    def _put(self, write: Callable[[], Any]) -> None:
        try:
            write()
            self._file.flush()
        except OSError as error:
            self.close()
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def write(self, row: dict[str, float]) -> None:
        """Appends a row. Raises `ValueError` if its columns are not `FIELDS`, `OSError` if it cannot be written."""
        if set(row) != set(FIELDS):
            raise ValueError(f"a row of metrics needs the columns {', '.join(FIELDS)}, got {', '.join(row)}")
        self._put(lambda: self._writer.writerow(row))
        self.rows.append(row)

    def sync(self) -> None:
        """Forces all rows to disk, so that a checkpoint can rely on them even after a power failure."""
        self._put(lambda: os.fsync(self._file.fileno()))

    def close(self) -> None:
        """Closes the file. Every row has already been flushed."""
        with contextlib.suppress(OSError):  # `write` has reported this error already
            self._file.close()


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv. Raises `ValueError` naming the file and the first invalid line."""
    if not path.exists():
        raise ValueError(f"{path} is missing")
    return _rows(path, path.read_bytes())


def read_so_far(path: Path) -> list[dict[str, float]]:
    """The complete rows of a metrics.csv that another process is writing. Raises `ValueError` as `read` does."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    return _rows(path, whole) if whole else []


def mean_rows(runs: Sequence[Sequence[dict[str, float]]]) -> list[dict[str, float]]:
    """The means over runs, row by row, up to the last row that all runs have."""
    return [{name: sum(row[name] for row in at) / len(at) for name in at[0]} for at in zip(*runs, strict=False)]


def _rows(path: Path, content: bytes) -> list[dict[str, float]]:
    try:
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""))
        header, found = tuple(reader.fieldnames or ()), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a file of metrics: {error}") from error
    if header != FIELDS:
        raise ValueError(f"{path}: the header does not match the metrics files of this version")
    rows = []
    for line, row in enumerate(found, start=2):
        if None in row or None in row.values():
            raise ValueError(f"{path}: line {line} does not have {len(FIELDS)} values")
        try:
            values = {name: float(row[name]) for name in FIELDS}
            # One NaN for all, which Python takes as equal to itself: rows of equal files are equal.
            rows.append({name: math.nan if math.isnan(value) else value for name, value in values.items()})
        except ValueError as error:
            raise ValueError(f"{path}: line {line}: {error}") from error
    return rows
