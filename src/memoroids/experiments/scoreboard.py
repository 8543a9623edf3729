"""The comparison of a grid of POPGym's tasks with published scores, by the measure of those."""

import json
import math
from typing import Any

import numpy as np

from memoroids.experiments import return_bounds
from memoroids.experiments.popgym import CLOSE, mmer, published_score
from memoroids.experiments.results import Results, Run
from memoroids.runs.settings import TrainConfig, flat
from memoroids.runs.settings_file import to_json

MADE_WITH = ("memoroids", "Python", "packages", "machine", "JAX runs on")
"""What is recorded of the versions and the machine of a run."""


def against_published(results: Results) -> list[dict[str, Any]]:
    """For each task: the memory with the best MMER beside the published score; empty but for POPGym's grid."""
    if results.grid["choice"]["figure"] != "popgym":
        return []
    best: dict[str, tuple[float, list[float], str, list[Run]]] = {}
    for (task, memory, _), runs in results.groups().items():
        each = [mmer(run.rows) for run in runs]
        score = float(np.mean(each))
        # Where no episode was finished there is no score, which is below all others.
        if task not in best or math.isnan(best[task][0]) or score > best[task][0]:
            best[task] = score, each, memory, runs
    out = []
    for task, (score, each, memory, runs) in best.items():
        number = published_score(task)
        published, source = ("", "") if number is None else number
        reached = "" if number is None else "yes" if score >= number[0] - CLOSE else "no"
        row: dict[str, Any] = {"task": task, "memory": memory, "seeds": len(runs), "MMER": score}
        row |= {"published": published, "source": source, "reached": reached}
        row |= {"MMER lowest": min(each), "MMER highest": max(each)}
        finals = [_finals(run) for run in runs]
        row |= {name: _mean([final[name] for final in finals]) for name in finals[0]}
        limits = {"reachable": return_bounds.reachable(task), "bound": return_bounds.bound(task)}
        row |= {name: "" if limit is None else limit for name, limit in limits.items()}
        row |= {"steps": float(np.mean([run.rows[-1]["env_steps"] for run in runs]))}
        out.append(row | {"seconds": float(np.mean([run.rows[-1]["seconds"] for run in runs]))})
    return out


def records(results: Results) -> list[dict[str, Any]]:
    """Every run of POPGym's grid with all that is needed to judge and repeat it; empty for other grids.

    `settings`: what differs from the defaults of the agent and the memory, as options of `memoroids train`.
    """
    if results.grid["choice"]["figure"] != "popgym":
        return []
    out = []
    for run in results.runs:
        row: dict[str, Any] = {"task": run.cell.task, "memory": run.cell.memory, "seed": run.cell.seed}
        row |= {"MMER": mmer(run.rows)} | _finals(run)
        row |= {"steps": int(run.rows[-1]["env_steps"]), "seconds": run.rows[-1]["seconds"]}
        made = {name: run.environment.get(name, "") for name in MADE_WITH}
        out.append(row | {"settings": _changed(run.cell.config)} | made)
    return out


def _finals(run: Run) -> dict[str, Any]:
    """The final returns of a run, greedy and sampled; "" for a way that was not evaluated."""
    return {f"final {way}": run.summary.get(f"final_return_{way}", "") for way in ("greedy", "sampled")}


def _mean(values: list[Any]) -> Any:
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
