"""A table of RecurrentPPO's runs beside runs of `memoroids train` with the same budget.

    python comparisons/recurrent_ppo/beside.py sb3.json --runs cartpole=runs/a cartpole=runs/b --steps 100000

Both sides are read at the last evaluation within the budget, with the parameters of that moment. Rates are steps for
each second up to there, evaluations included. Needs the standard library only.
"""

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Row = dict[str, Any]
COLUMNS = ("env", "agent", "runs", "steps", "greedy", "sampled", "steps/s with evaluations", "steps/s")
SLACK = 1.25
"""How far the end of a run may lie behind the budget, since both sides only stop between two updates."""


def sb3_rows(path: Path) -> dict[tuple[str, str], list[list[Row]]]:
    """The evaluations of each run in the file of `train_sb3.py`, by environment and agent."""
    runs: dict[tuple[str, int, int], list[Row]] = {}
    for row in json.loads(path.read_text()):
        runs.setdefault((row["env"], row["threads"], row["seed"]), []).append(row)
    found: dict[tuple[str, str], list[list[Row]]] = {}
    for (env, threads, _), rows in runs.items():
        found.setdefault((env, f"RecurrentPPO, {threads} thread{'s' * (threads > 1)}"), []).append(rows)
    return found


def own_rows(runs: Sequence[tuple[str, Path]]) -> dict[tuple[str, str], list[list[Row]]]:
    """The evaluations of each run directory of `memoroids train`, by environment and agent."""
    found: dict[tuple[str, str], list[list[Row]]] = {}
    for env, path in runs:
        config = json.loads((path / "config.json").read_text())
        agent = f"memoroids {config['algorithm']}, {config['network']['memory']}"
        with (path / "metrics.csv").open(newline="") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        found.setdefault((env, agent), []).append(
            [
                {
                    "steps": int(row["env_steps"]),
                    "greedy": row["eval_greedy"],
                    "sampled": row["eval_sampled"],
                    "steps_per_s_with_evaluations": row["env_steps"] / max(row["seconds"], 1e-9),
                }
                for row in rows
            ]
        )
    return found


def at(rows: Sequence[Row], steps: int) -> Row | None:
    """The last evaluation within `steps`, or the first after it if a run has none before and stops soon after."""
    within = [row for row in rows if row["steps"] <= steps]
    near = [row for row in rows if steps < row["steps"] <= SLACK * steps]
    # An evaluation at the very end of the budget lies a little behind it, where the last rollout ended.
    return near[0] if near and (not within or near[0] is rows[-1]) else within[-1] if within else None


def beside(groups: Mapping[tuple[str, str], Sequence[Sequence[Row]]], steps: int) -> list[Row]:
    """A row for each environment and agent: medians and, in brackets, ranges over runs."""
    table = []
    for (env, agent), runs in sorted(groups.items()):
        found = [row for row in (at(rows, steps) for rows in runs) if row is not None]
        if not found:
            continue
        cells = [env, agent, len(found), int(median(row["steps"] for row in found))]
        names = ("greedy", "sampled", "steps_per_s_with_evaluations", "steps_per_s")
        cells += [_spread([row[name] for row in found if name in row and row[name] == row[name]]) for name in names]
        table.append(dict(zip(COLUMNS, cells, strict=True)))
    return table


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    digits = 0 if max(map(abs, values)) >= 10 else 2
    middle, low, high = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} [{low}, {high}]" if len(values) > 1 else middle


def markdown(table: Sequence[Row]) -> str:
    """The table in markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    return "\n".join(lines + [f"| {' | '.join(str(row[name]) for name in COLUMNS)} |" for row in table])


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sb3", type=Path, help="JSON file of train_sb3.py")
    parser.add_argument("--runs", nargs="*", default=[], metavar="NAME=DIR", help="run directories of memoroids train")
    parser.add_argument("--steps", type=int, required=True, help="the budget at which both are read")
    asked = parser.parse_args(arguments)
    named = [run.partition("=") for run in asked.runs]
    if wrong := [run for run, (_, equals, _) in zip(asked.runs, named, strict=True) if not equals]:
        parser.error(f"--runs takes NAME=DIR, got {wrong[0]}")
    ours = own_rows([(name, Path(path)) for name, _, path in named])
    print(markdown(beside({**sb3_rows(asked.sb3), **ours}, asked.steps)))


if __name__ == "__main__":
    main()
