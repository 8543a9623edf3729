"""A run as its directory shows it, for `memoroids doctor`: what was measured, a line each, and the findings."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memoroids.runs.baseline import Baseline, read_baseline
from memoroids.runs.doctor import Record, examine
from memoroids.runs.doctor_early import Finding, time_spent
from memoroids.runs.metrics import LOSSES
from memoroids.runs.run_directory import BASELINE, METRICS, load_config, read_rows, read_summary, seed_dir


def read_record(run_dir: Path) -> Record:
    """What is known of a run of one seed. Raises `ValueError` if it cannot be read, or nothing is."""
    config, summary = load_config(run_dir), read_summary(run_dir) or {}
    rows, baseline = read_rows(run_dir) if (run_dir / METRICS).exists() else [], read_baseline(run_dir)
    if not rows and baseline is None:
        raise ValueError(f"{run_dir} has measured nothing yet: it has no {BASELINE}, and no rows in its {METRICS}")
    return Record(config, rows, baseline, read_final(summary))


def read_final(summary: dict[str, Any]) -> tuple[float, float] | None:
    """The mean and standard deviation of the final returns in a summary; None if they are not there."""
    try:
        return float(summary["final_return"]), float(summary["final_deviation"])
    except (KeyError, TypeError, ValueError):  # not finished, or written by an older version
        return None


def examined(run_dir: Path) -> list[Finding]:
    """The findings of a run of one seed; none if its directory cannot be read."""
    try:
        return examine(read_record(run_dir))
    except ValueError:
        return []


def seeds_of(run_dir: Path) -> list[Path]:
    """The run directories of the seeds that a run has begun; of a run of one seed, its own. Raises `ValueError`."""
    config = load_config(run_dir)
    if config.placement.seeds == 1:
        return [run_dir]
    return [path for i in range(config.placement.seeds) if (path := seed_dir(run_dir, config.seed + i)).exists()]


def measured(record: Record) -> Iterator[tuple[str, str]]:
    """What was measured: a label and a line of figures each, of what there is."""
    rows = record.rows
    if record.baseline is not None:
        yield from _baseline(record.baseline)
    if rows:
        best = max(rows, key=lambda row: row["eval_return"])
        returns = (
            f"{rows[-1]['eval_return']:.4g} now, best {best['eval_return']:.4g} after {best['episode']:,.0f} episodes"
        )
        yield f"return, {record.config.evaluation.way}", returns
        for name in LOSSES:
            if not math.isnan(now := record.middle(name)):
                yield name.replace("_", " "), f"{now:.3g} lately, {rows[0][name]:.3g} at first"
        limit = record.setting("max_grad_norm")
        clipped = f", scaled down to {limit:g} at most" if limit is not None else ""
        yield "gradient norm", f"{record.middle('grad_norm'):.3g} lately{clipped}"
        yield "updates", f"{rows[-1]['updates']:,.0f}, of which {rows[-1]['skipped']:,.0f} were skipped"
        yield from _speeds(record)
    if record.final is not None:
        yield "final evaluation", f"{record.final[0]:.4g}, standard deviation {record.final[1]:.3g}"


def _baseline(base: Baseline) -> Iterator[tuple[str, str]]:
    count = len(base.returns)
    if count:
        spread = "" if math.isnan(base.deviation) else f", standard deviation {base.deviation:.3g}"
        yield "random actions", f"return {base.mean:.4g}{spread}, of {count} episodes"
        limit = "" if base.limit is None else f" (the limit is {base.limit:,})"
        cut = f"{base.truncated} ended by truncation{limit}"
        yield "lengths", f"{min(base.lengths):,} to {max(base.lengths):,} steps, {cut}"
    else:
        yield "random actions", f"no episode ended in {base.steps:,} steps"
    if base.rewards is not None:
        yield "rewards", f"{base.rewards[0]:.4g} to {base.rewards[1]:.4g}"
    seen = base.seen
    yield "observations", f"{seen.elements:,} elements, of which {seen.moving:,} changed within an episode"
    if len(seen.mean) == seen.elements and (sizes := seen.sizes.values()):
        yield "their size", f"root mean squares from {min(sizes):.3g} to {max(sizes):.3g}"
    if base.seconds:
        yield "environment alone", f"{base.steps / base.seconds:,.0f} steps/s"


def _speeds(record: Record) -> Iterator[tuple[str, str]]:
    """Steps per second of each part of a host run, and its share of their time."""
    if (spent := time_spent(record.rows)) is None:
        return
    steps, by_column = spent
    parts = {"environment": "env_seconds", "policy": "policy_seconds", "updates": "update_seconds"}
    seconds = {part: by_column[column] for part, column in parts.items()}
    whole = sum(seconds.values())
    if whole > 0:
        said = [f"{part} {steps / each:,.0f} ({each / whole:.0%})" for part, each in seconds.items() if each > 0]
        yield "steps/s (share of time)", ", ".join(said)
