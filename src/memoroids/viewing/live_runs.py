"""Runs under way as a live page shows them: curves, speeds, warnings and findings, read from their directories."""

import contextlib
import math
import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from memoroids._util.messages import one_line
from memoroids.runs.baseline import read_baseline
from memoroids.runs.check_up import read_final, seeds_of
from memoroids.runs.doctor import Record, examine
from memoroids.runs.metrics import FIELDS, mean_rows, read_so_far
from memoroids.runs.run_directory import (
    BASELINE,
    CHECKPOINTS,
    CONFIG,
    METRICS,
    SUMMARY,
    WARNINGS,
    is_seed_dir,
    load_config,
    read_summary,
)

Row = dict[str, float]
Signature = tuple[tuple[str, int, int], ...]
"""Name, time of the last change in nanoseconds, and size of each file of a run."""

WARNED = 30
"""Warnings of a run of one seed that are shown, the newest."""
SHOWN = 12
"""Runs of a folder that are shown, those that changed last."""
FILES = (CONFIG, METRICS, WARNINGS, SUMMARY, BASELINE, CHECKPOINTS)
"""What a run writes while it trains."""


def runs_in(path: Path) -> list[Path]:
    """The run that this directory is, or the runs that it holds: those that changed last, in the order of names.

    Raises `ValueError` if it is neither.
    """
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} is no path")
    if (path / CONFIG).exists():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path} is no directory: name a run, or a folder of runs")
    within = [child for child in path.iterdir() if (child / CONFIG).exists()]
    if not within:
        raise ValueError(f"{path} holds no run: train one, or name its directory")
    return sorted(sorted(within, key=lambda run: _newest(_signature(run)), reverse=True)[:SHOWN])


def live(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What is known of the runs that these directories are or hold, see `described`."""
    found = []
    for path in paths:
        try:
            found += [described(run) for run in runs_in(path)]
        except (ValueError, OSError) as error:  # it was moved away since the page was opened
            found.append({"path": str(path), "error": one_line(error)})
    return found


def described(path: Path) -> dict[str, Any]:
    """What is known of a run so far, ready for JSON; a run that cannot be read has only an `error`.

    `curves` are the columns of metrics of each seed, by its label; where there are several seeds, the first is their
    mean, at each row of those that have got so far. What is not finite is None.
    """
    try:
        signature = _signature(path)
        known = _described(path, signature)
        return {"path": str(path), **known, "age": max(0.0, time.time() - _newest(signature))}
    except Exception as error:  # a damaged run must not hide the others
        return {"path": str(path), "error": one_line(error) or type(error).__name__}


def _signature(path: Path) -> Signature:
    """What changes whenever the run, or one of its seeds, has written something."""
    found = []
    for directory in (path, *filter(is_seed_dir, path.iterdir())):
        for name in FILES:
            with contextlib.suppress(OSError):  # not written yet
                status = (directory / name).stat()
                found.append((f"{directory.name}/{name}", status.st_mtime_ns, status.st_size))
    return tuple(found)


def _newest(signature: Signature) -> float:
    """When a run last wrote something, in seconds since the epoch."""
    return max((mtime / 1e9 for _, mtime, _ in signature), default=0.0)


@lru_cache(maxsize=4 * SHOWN)
def _described(path: Path, signature: Signature) -> dict[str, Any]:
    """`signature`: of what is read here, so that a run which has written nothing is not read again."""
    config = load_config(path)
    seeds = {"run" if seed == path else seed.name: seed for seed in seeds_of(path)}
    records = {label: _record(seed) for label, seed in seeds.items()}
    rows = {label: record.rows for label, record in records.items() if record.rows}
    number = config.placement.seeds
    curves = rows if number == 1 or not rows else {"mean": _mean_so_far(list(rows.values())), **rows}
    share = sum(record.share for record in records.values()) / number
    spent = [each[-1]["seconds"] for each in rows.values()]
    seconds = max(spent, default=0.0) if config.env.on_device else sum(spent)  # together, or one after the other
    finals = [record.final[0] for record in records.values() if record.final is not None]
    finished = len(finals) == number
    means = [record.baseline.mean for record in records.values() if record.baseline is not None]
    prefix = {label: "" if number == 1 else f"{label}: " for label in records}
    warnings = {label: _warnings(seed) for label, seed in seeds.items()}
    return {
        "about": f"{config.algorithm}, {config.network.memory} on {config.env.id}",
        "way": config.evaluation.way,
        "random": _known(_mean(means)),
        "target": config.evaluation.target_return,
        "share": 1.0 if finished else share,
        "finished": finished,
        "final": _known(_mean(finals)) if finished else None,
        "left": None if finished or not share else _known(seconds * (1 / share - 1)),
        "curves": {label: _columns(each) for label, each in curves.items()},
        "warned": sum(map(len, warnings.values())),
        "warnings": [prefix[label] + line for label, lines in warnings.items() for line in lines[-WARNED:]],
        "findings": [
            f"{prefix[label]}{finding.name}: {finding.line}"
            for label, record in records.items()
            for finding in examine(record)
        ],
    }


def _record(seed: Path) -> Record:
    """A run of one seed, up to the last row that is whole."""
    rows = read_so_far(seed / METRICS) if (seed / METRICS).exists() else []
    return Record(load_config(seed), rows, read_baseline(seed), read_final(read_summary(seed) or {}))


def _mean_so_far(seeds: Sequence[Sequence[Row]]) -> list[Row]:
    return [mean_rows([[row] for row in at if row is not None])[0] for at in zip_longest(*seeds)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _columns(rows: Sequence[Row]) -> dict[str, list[float | None]]:
    """The columns of which anything is known."""
    columns = {name: [_known(row[name]) for row in rows] for name in FIELDS}
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}


def _warnings(seed: Path) -> list[str]:
    try:
        return (seed / WARNINGS).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
