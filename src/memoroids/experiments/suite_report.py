"""The table of the suite: what agents reached with their defaults, beside random actions and the targets."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from memoroids.experiments import random_returns
from memoroids.experiments.random_returns import RandomReturn
from memoroids.experiments.report_markdown import closing, markdown
from memoroids.experiments.results import Results, Run
from memoroids.experiments.suite import STEPS, SUITE, SuiteChoice, budget
from memoroids.experiments.tables import Row
from memoroids.experiments.tables import write as write_csv

CSV, PAGE = "suite.csv", "suite.md"
_ABOUT = """\
Agents with their default settings. *Final* is the return of the last parameters on environment seeds used for nothing
else; *best* is the best evaluation during training, which is selected after the fact; *at {steps:,}* is the last
evaluation within {steps:,} environment steps. Numbers are medians over seeds, in brackets the range. A target is met if
the median reaches it within its steps: final, or the last evaluation within them where a run has a larger budget. An
agent is above random if its median at {steps:,} steps is more than two standard errors above the mean return of
{episodes} random episodes. Steps per second are those of whole runs, evaluations included.
"""


def write(found: Results, root: Path, directory: Path) -> Path:
    """Writes `directory`/suite.csv and suite.md from a grid in `root`, finished or not. Returns the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    table = rows(found, random_returns.read(root))
    write_csv(table, directory / CSV)
    total, done = len(found.grid["cells"]), len(found.runs)
    lines = ["# Agents with their defaults on the suite", "", f"{done} of {total} runs done.", ""]
    if found.grid["choice"]["scale"] == "smoke":
        lines += ["A smoke run: it checks that every part works, but is too short for learning.", ""]
    lines += [_ABOUT.format(steps=STEPS, episodes=random_returns.EPISODES), markdown(table), ""]
    lines += closing(found)
    page = directory / PAGE
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def rows(found: Results, random: dict[str, RandomReturn]) -> list[Row]:
    """A row for each environment, agent and memory, and for each environment that is left out; blanks are empty."""
    asked: dict[tuple[str, str, str], int] = {}
    for entry in found.grid["cells"]:
        key = entry["task"], entry["config"]["algorithm"], entry["memory"]
        asked[key] = asked.get(key, 0) + 1
    groups: dict[tuple[str, str, str], list[Run]] = {key: [] for key in asked}
    for run in found.runs:
        groups[run.cell.task, run.cell.config.algorithm, run.cell.memory].append(run)
    table = [_row(key, asked[key], runs, random.get(key[0])) for key, runs in groups.items()]
    # A grid holds no cells of what was not installed when it began.
    present = {key[0] for key in asked}
    names = SuiteChoice(tasks=tuple(found.grid["choice"]["tasks"])).names()
    for name in names:
        if name not in present:
            blank = dict.fromkeys(table[0], "")
            table.append(blank | {"environment": name, "status": f"left out: pip install {SUITE[name].install}"})
    return table


def _row(key: tuple[str, str, str], asked: int, runs: Sequence[Run], random: RandomReturn | None) -> Row:
    task, algorithm, memory = key
    goal = SUITE[task].goal(algorithm)
    steps = budget(runs[0].cell.config) if runs else ""
    row: Row = {"environment": task, "agent": algorithm, "memory": memory, "seeds": len(runs), "steps": steps}
    row |= _spread("final", [run.summary["final_return"] for run in runs])
    row |= _spread("best", [max(run.column("eval_return")) for run in runs])
    early = [value for run in runs if (value := reached(run, STEPS)) is not None]
    row |= _spread(f"at {STEPS:,}", early if len(early) == len(runs) else [])
    row["random"] = "" if random is None else random.mean
    # Strictly: where random actions never succeed, an agent that does not either is no better.
    above = math.nextafter(random.above, math.inf) if random else None
    row["above random"] = _verdict(row[f"at {STEPS:,}"], above)
    values = [value for run in runs if (value := reached(run, goal.steps)) is not None]
    judged = median(values) if values and len(values) == len(runs) else ""
    row |= {"target": "" if goal.target is None else goal.target, "by steps": "" if goal.target is None else goal.steps}
    row["met"] = _verdict(judged, goal.target)
    row["steps/s"] = median(run.rows[-1]["env_steps"] / run.rows[-1]["seconds"] for run in runs) if runs else ""
    return row | {"status": "done" if len(runs) == asked else f"{len(runs)} of {asked} seeds"}


def reached(run: Run, steps: int) -> float | None:
    """The return of a run within `steps` environment steps, None if it trained for fewer.

    That of its last parameters if this was its budget, else that of its last evaluation within them.
    """
    whole = budget(run.cell.config)
    if whole == steps:
        return run.summary["final_return"]
    within = [row["eval_return"] for row in run.rows if row["env_steps"] <= steps]
    return within[-1] if whole > steps and within else None


def _verdict(value: float | str, least: float | None) -> str:
    if value == "" or least is None:
        return ""
    return "yes" if float(value) >= least else "no"


def _spread(name: str, values: Sequence[float]) -> Row:
    middle, low, high = (median(values), min(values), max(values)) if values else ("", "", "")
    return {name: middle, f"{name} low": low, f"{name} high": high}
