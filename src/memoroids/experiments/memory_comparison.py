"""Memories against each other, over all tasks that every one of them was trained on."""

from itertools import permutations
from typing import Any

import numpy as np

from memoroids.experiments import statistics
from memoroids.experiments.grid import TAPE
from memoroids.experiments.popgym import FAMILIES, split_level
from memoroids.experiments.results import Results

Scores = dict[str, dict[str, np.ndarray]]
"""Final returns by memory and task, (seeds,) each."""

THRESHOLDS = np.round(np.linspace(-1, 1, 81), 3)
"""The returns at which performance profiles are read: those of POPGym's tasks lie between -1 and 1."""


def compared(results: Results) -> Scores:
    """The final returns of two memories or more on the tasks that all of them have, trained on tapes; else empty.

    Only tasks of POPGym count, whose returns have one scale. Memories with less than half as many tasks as the one with
    most are left out.
    """
    found: Scores = {}
    for (task, memory, batching), runs in results.groups().items():
        if batching == TAPE and split_level(task)[0] in FAMILIES:
            returns = np.asarray([run.summary["final_return"] for run in runs], np.float64)
            found.setdefault(memory, {})[task] = returns
    most = max(map(len, found.values()), default=0)
    found = {memory: of for memory, of in found.items() if 2 * len(of) >= most}
    common = set.intersection(*map(set, found.values())) if found else set()
    if len(found) < 2 or not common:
        return {}
    return {memory: {task: of[task] for task in of if task in common} for memory, of in found.items()}


def memories(results: Results) -> list[dict[str, Any]]:
    """For each memory, best first: mean and interquartile mean of final returns over the common tasks.

    Intervals resample seeds within each task. Source: Agarwal et al. 2021.
    """
    rows = []
    for memory, of in compared(results).items():
        row: dict[str, Any] = {"memory": memory, "tasks": len(of), "runs": sum(map(len, of.values()))}
        for name, statistic in (("interquartile mean", statistics.iqm), ("mean", statistics.mean)):
            low, high = statistics.interval(statistic, of)
            row |= {name: float(statistic(of)), f"{name} low": low, f"{name} high": high}
        rows.append(row)
    return sorted(rows, key=lambda row: -row["interquartile mean"])


def memory_pairs(results: Results) -> list[dict[str, Any]]:
    """For each ordered pair of memories the probability that a run of the first has the higher final return.

    Averaged over the common tasks; ties count half. Source: Agarwal et al. 2021, Section 4.3.
    """
    scores = compared(results)
    rows = []
    for better, than in permutations(scores, 2):
        sides = scores[better], scores[than]
        low, high = statistics.improvement_interval(*sides)
        found = statistics.probability_of_improvement(*sides)
        rows.append({"better": better, "than": than, "P(improvement)": found, "P low": low, "P high": high})
    return rows


def performance_profiles(results: Results) -> list[dict[str, Any]]:
    """For each memory and threshold τ: the share of runs whose final return is above τ, the mean over the common tasks.

    Source: Agarwal et al. 2021, Section 4.2.
    """
    rows = []
    for memory, of in compared(results).items():
        above = {task: (returns[:, None] > THRESHOLDS).astype(np.float64) for task, returns in of.items()}
        shares = statistics.curve_interval(above)
        for i, threshold in enumerate(THRESHOLDS):
            row = {"memory": memory, "threshold": float(threshold), "share": shares.mean[i]}
            rows.append(row | {"low": shares.low[i], "high": shares.high[i]})
    return rows
