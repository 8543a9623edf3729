"""Runs under way as a live page shows them: curves, speeds, warnings and findings, read from their directories."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memoroids.runs.baseline import mean_baseline
from memoroids.runs.check_up import read_record, seeds_of
from memoroids.runs.doctor import examine
from memoroids.runs.metrics import FIELDS, mean_rows, read_so_far
from memoroids.runs.run_directory import CHECKPOINTS, CONFIG, METRICS, SUMMARY, WARNINGS, load_config, read_summary
from memoroids.runs.settings import TrainConfig

Row = dict[str, float]

WARNED = 30
"""Warnings of a run that are shown, the newest."""
SHOWN = 12
"""Runs of a folder that are shown, those that changed last."""


def runs_in(paths: Sequence[Path]) -> list[Path]:
    """The runs that these directories are or hold; of a folder of runs the newest, as many as `SHOWN`.

    Raises `ValueError` for a path that is no directory of a run or of runs.
    """
    found = []
    for path in paths:
        if "\0" in str(path):
            raise ValueError(f"{str(path)!r} is no path")
        if (path / CONFIG).exists():
            found.append(path)
            continue
        if not path.is_dir():
            raise ValueError(f"{path} is no directory: name a run, or a folder of runs")
        within = [child for child in path.iterdir() if (child / CONFIG).exists()]
        found += sorted(within, key=_changed, reverse=True)[:SHOWN]
    if not found:
        raise ValueError(f"{', '.join(map(str, paths))} holds no run: train one, or name its directory")
    return found


def live(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What is known of the runs that these directories are or hold, see `described`."""
    try:
        return [described(run) for run in runs_in(paths)]
    except (ValueError, OSError) as error:  # all were moved away since the page was opened
        return [{"path": ", ".join(map(str, paths)), "error": str(error)}]


def described(path: Path) -> dict[str, Any]:
    """What is known of a run so far, ready for JSON; a run that cannot be read has only an `error`.

    `rows` are the columns of metrics of each seed, by its label; where there are several seeds, their mean is the first
    of them. NaN is None.
    """
    try:
        return {"path": str(path), **_described(path)}
    except (ValueError, OSError) as error:
        return {"path": str(path), "error": str(error)}


def _described(path: Path) -> dict[str, Any]:
    config, seeds = load_config(path), seeds_of(path)
    rows = {_label(seed, path): read_so_far(seed / METRICS) for seed in seeds if (seed / METRICS).exists()}
    mean = next(iter(rows.values()), []) if len(rows) == 1 else mean_rows(list(rows.values()))
    curves = rows if len(rows) == 1 else {"mean": mean, **rows}
    done = [_share(config, each) for each in rows.values()]
    share, spent = sum(done) / config.placement.seeds, [each[-1]["seconds"] for each in rows.values() if each]
    seconds = max(spent, default=0.0) if config.env.on_device else sum(spent)  # together, or one after the other
    summaries = [read_summary(seed) for seed in seeds]
    finished = len(seeds) == config.placement.seeds and all(summary is not None for summary in summaries)
    return {
        "about": f"{config.algorithm}, {config.network.memory} on {config.env.id}",
        "way": config.evaluation.way,
        "random": _known(mean_baseline(seeds)),
        "target": config.evaluation.target_return,
        "share": 1.0 if finished else share,
        "finished": finished,
        "final": _known(_mean([summary["final_return"] for summary in summaries if summary])) if finished else None,
        "left": None if finished or not share else seconds * (1 / share - 1),
        "age": max(0.0, time.time() - max(map(_changed, [path, *seeds]))),
        "curves": {label: _columns(each) for label, each in curves.items() if each},
        "warnings": [line for seed in seeds for line in _warnings(seed, path)],
        "findings": [line for seed in seeds for line in _findings(seed, path)],
    }


def _label(seed: Path, path: Path) -> str:
    return "run" if seed == path else seed.name


def _share(config: TrainConfig, rows: Sequence[Row]) -> float:
    """The share of the training that one seed has done."""
    if not rows:
        return 0.0
    return min(1.0, config.budget.share_done(int(rows[-1]["episode"]), int(rows[-1]["env_steps"])))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _columns(rows: Sequence[Row]) -> dict[str, list[float | None]]:
    """The columns of which anything is known."""
    columns = {name: [_known(row[name]) for row in rows] for name in FIELDS}
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}


def _warnings(seed: Path, path: Path) -> list[str]:
    try:
        lines = (seed / WARNINGS).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [_of(seed, path, line) for line in lines[-WARNED:]]


def _findings(seed: Path, path: Path) -> list[str]:
    try:
        found = examine(read_record(seed))
    except ValueError:  # nothing measured yet, or a row half written
        return []
    return [_of(seed, path, f"{finding.name}: {finding.line}") for finding in found]


def _of(seed: Path, path: Path, line: str) -> str:
    return line if seed == path else f"{seed.name}: {line}"


def _changed(run: Path) -> float:
    """When a run last wrote something, in seconds since the epoch."""
    times = [0.0]
    for name in (CONFIG, METRICS, WARNINGS, SUMMARY, CHECKPOINTS):
        try:
            times.append((run / name).stat().st_mtime)
        except OSError:
            continue
    return max(times)
