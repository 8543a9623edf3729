"""The comparison of a grid of POPGym's tasks with published scores, by the measure of those."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from memoroids.experiments import return_bounds
from memoroids.experiments.popgym import CLOSE, FAMILIES, LEVELS, mmer, published_score, split_level
from memoroids.experiments.results import Results
from memoroids.runs.settings import TrainConfig, flat
from memoroids.runs.settings_file import to_json

MADE_WITH = ("memoroids", "Python", "packages", "machine", "JAX runs on")
"""What is recorded of the versions and the machine of a run."""
WAYS = ("greedy", "sampled")
"""How final episodes are played."""


def against_published(results: Results) -> list[dict[str, Any]]:
    """For each task: the best runs beside the published score, from `records`; empty but for POPGym's grid.

    Runs with the same memory and settings belong together. Those with most seeds come first, then the best by MMER.
    """
    tasks: dict[str, dict[tuple[str, str], list[dict[str, Any]]]] = {}
    for row in records(results):
        tasks.setdefault(row["task"], {}).setdefault((row["memory"], row["settings"]), []).append(row)
    return [_beside(task, max(groups.values(), key=_rank)) for task, groups in sorted(tasks.items(), key=_position)]


def _rank(rows: list[dict[str, Any]]) -> tuple[int, float]:
    score = _mean(rows, "MMER")
    # Where no episode was finished there is no score, which is below all others.
    return len(rows), -math.inf if math.isnan(score) else score


def _position(item: tuple[str, Any]) -> tuple[int, ...]:
    family, level = split_level(item[0])
    return tuple(
        each.index(name) if name in each else len(each) for each, name in ((FAMILIES, family), (LEVELS, level))
    )


def _beside(task: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of a task, from the records of its best runs."""
    each = [row["MMER"] for row in rows]
    score, number = float(np.mean(each)), published_score(task)
    published, source = ("", "") if number is None else number
    reached = "" if number is None else "yes" if score >= number[0] - CLOSE else "no"
    out: dict[str, Any] = {"task": task, "memory": rows[0]["memory"], "seeds": len(rows), "MMER": score}
    out |= {"published": published, "source": source, "reached": reached}
    out |= {"MMER lowest": min(each), "MMER highest": max(each)}
    out |= {name: _mean(rows, name) for name in (f"final {way}" for way in WAYS)}
    limits = {"reachable": return_bounds.reachable(task), "bound": return_bounds.bound(task)}
    out |= {name: "" if limit is None else limit for name, limit in limits.items()}
    return out | {name: _mean(rows, name) for name in ("steps", "seconds")}


def records(results: Results) -> list[dict[str, Any]]:
    """Every run of POPGym's grid with all that is needed to judge and repeat it; empty for other grids.

    `settings`: what differs from the defaults of the agent and the memory, as options of `memoroids train`. Records
    that were kept of earlier runs come first, unless a run of the grid has the same task, memory and seed.
    """
    if results.grid["choice"]["figure"] != "popgym":
        return []
    out = []
    for run in results.runs:
        row: dict[str, Any] = {"task": run.cell.task, "memory": run.cell.memory, "seed": run.cell.seed}
        row |= {"MMER": mmer(run.rows)}
        row |= {f"final {way}": run.summary.get(f"final_return_{way}", "") for way in WAYS}
        row |= {"steps": int(run.rows[-1]["env_steps"]), "seconds": run.rows[-1]["seconds"]}
        made = {name: run.environment.get(name, "") for name in MADE_WITH}
        out.append(row | {"settings": _changed(run.cell.config)} | made)
    new = {_which(row) for row in out}
    return [row for row in results.kept if _which(row) not in new] + out


def _which(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("task", "memory", "seed"))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Reads what `records` wrote. Raises `ValueError` for a file that holds something else."""
    finals = tuple(f"final {way}" for way in WAYS)
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            present = reader.fieldnames or ()
            rows: list[dict[str, Any]] = list(reader)
        columns = ("task", "memory", "seed", "MMER", *finals, "steps", "seconds", "settings", *MADE_WITH)
        if missing := [name for name in columns if name not in present]:
            raise ValueError(f"it has no column {missing[0]!r}")
        for row in rows:
            row |= {name: int(row[name]) for name in ("seed", "steps")}
            row |= {name: float(row[name]) for name in ("MMER", "seconds")}
            row |= {name: float(row[name]) if row[name] else "" for name in finals}
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no records of runs: {error}") from error
    return rows


def _mean(rows: list[dict[str, Any]], name: str) -> Any:
    """The mean of a column; "" where a run has no value, as for a way in which it was not evaluated."""
    values = [row[name] for row in rows]
    return "" if "" in values else float(np.mean(values))


def _changed(config: TrainConfig) -> str:
    """The settings that differ from their defaults, as options of `memoroids train`."""
    plain = TrainConfig.of(
        preset="default", env=config.env.id, memory=config.network.memory, algorithm=config.algorithm, seed=config.seed
    )
    mine, theirs = (flat(json.loads(to_json(each))) for each in (config, plain))
    changed = {name: value for name, value in mine.items() if value != theirs.get(name)}
    return " ".join(_option(name, value) for name, value in changed.items())


def _option(name: str, value: Any) -> str:
    flag = name.replace("_", "-") if not name.endswith("_") else name
    if isinstance(value, bool) and name != "previous_action":
        return f"--{flag}" if value else f"--no-{flag}"
    if isinstance(value, dict):
        value = [part for pair in value.items() for part in pair]
    return f"--{flag} {' '.join(map(str, value)) if isinstance(value, list) else value}"
