"""The tables of a grid: scores, comparisons, sensitivity and cost, each a list of rows for CSV and HTML."""

import csv
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from memoroids.experiments import statistics
from memoroids.experiments.grid import TAPE
from memoroids.experiments.memory_comparison import memories, memory_pairs, performance_profiles
from memoroids.experiments.popgym import mmer
from memoroids.experiments.results import Results, Run
from memoroids.experiments.scoreboard import against_published, records
from memoroids.runs.progress import episodes_to

Row = dict[str, Any]
Pair = tuple[str, str]


def write(rows: Sequence[Row], path: Path) -> None:
    """Writes rows as CSV; an empty file if there are none."""
    with path.open("w", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def read(path: Path) -> list[Row]:
    """Reads the rows of a CSV file, numbers as floats."""

    def value(text: str) -> str | float:
        try:
            return float(text)
        except ValueError:
            return text

    with path.open(newline="") as file:
        return [{name: value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def scores(results: Results) -> list[Row]:
    """For each group of seeds: final return, and mean, last and maximum evaluation return, with intervals over seeds.

    The mean over training is the area under the learning curve. The final return is measured on environment seeds that
    were used for nothing else. The maximum is selected on the evaluations it is taken from, so it is not a score.
    """
    out = []
    for (task, memory, batching), runs in results.groups().items():
        row: Row = {"task": task, "memory": memory, "batching": batching, "seeds": len(runs)}
        summaries = [statistics.summary_of(run.rows) for run in runs]
        for name, values in (
            ("final", [run.summary["final_return"] for run in runs]),
            ("mean", [summary["auc"] for summary in summaries]),
            ("last", [summary["last"] for summary in summaries]),
            ("maximum", [summary["maximum"] for summary in summaries]),
        ):
            row |= with_interval(name, np.asarray(values))
        reached = [episodes_to(run.rows, run.target) for run in runs]
        middle = median(math.inf if episodes is None else episodes for episodes in reached)
        target = runs[0].target
        row["target"] = "" if target is None else target
        row["reached target"] = "" if target is None else sum(episodes is not None for episodes in reached)
        row["episodes to target (median)"] = "" if math.isinf(middle) else middle
        out.append(row)
    return out


def curves(results: Results) -> list[Row]:
    """Mean evaluation return with its interval over seeds, for each group, at the evaluations common to its seeds."""
    out = []
    for (task, memory, batching), runs in results.groups().items():
        episodes, values = aligned(runs, "eval_return")
        mean, low, high = statistics.curve_interval(values)
        for i, episode in enumerate(episodes):
            row = {"task": task, "memory": memory, "batching": batching, "episode": int(episode)}
            out.append(row | {"mean": mean[i], "low": low[i], "high": high[i]})
    return out


def aligned(runs: Sequence[Run], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Training episodes (points,) and a column's values (seeds, points), at the evaluations common to all runs.

    Runs that evaluate by steps have episodes of different numbers: if less than half of the evaluations are common, the
    first of each run are taken together, the second, and so on, with the mean of their episodes.
    """
    common = sorted(set.intersection(*(set(run.column("episode")) for run in runs)))
    fewest = min(len(run.rows) for run in runs)
    if 2 * len(common) < fewest:
        episodes = np.mean([run.column("episode")[:fewest] for run in runs], axis=0)
        return episodes, np.asarray([run.column(column)[:fewest] for run in runs])
    values = []
    for run in runs:
        at = dict(zip(run.column("episode"), run.column(column), strict=True))
        values.append([at[episode] for episode in common])
    return np.asarray(common), np.asarray(values)


def aggregate(results: Results) -> list[Row]:
    """For each batching: mean and interquartile mean, over tasks and memories, of the area under the learning curve.

    Only pairs of task and memory with results for every batching count, so that all rows compare the same pairs.
    """
    areas = _areas(results)
    complete = set.intersection(*(set(of) for of in areas.values())) if areas else set()
    out = []
    for batching, of in areas.items():
        strata = [_scores(values) for pair, values in of.items() if pair in complete]
        if strata:
            row: Row = {"batching": batching, "pairs": len(strata), "seeds": sum(len(values) for values in strata)}
            for name, statistic in (("mean", statistics.mean), ("interquartile mean", statistics.iqm)):
                low, high = statistics.interval(statistic, strata)
                row |= {name: statistic(strata), f"{name} low": low, f"{name} high": high}
            out.append(row)
    return out


def against_segments(results: Results) -> list[Row]:
    """Tapes against each segment length: difference of areas under the learning curve, and probability of improvement.

    `difference` treats the two sides as independent, and `verdict` follows from its interval; `paired` is the mean
    difference of runs with the same seed. The segments of an ablation are compared with unchanged tapes and with tapes
    that have the same change.
    """
    names = list(_areas(results))
    changed = [name for name in names if name.startswith(f"{TAPE} ")]
    sides = [(TAPE, name) for name in names if name.startswith("SBB")]
    sides += [(tape, name) for tape in changed for _, name in sides if tape.removeprefix(TAPE) in name]
    return _compared(results, sides)


def between_lengths(results: Results) -> list[Row]:
    """Each segment length against the next shorter one."""
    plain = {
        run.cell.batching: run.cell.config.replay.segment_length for run in results.runs if "SBB" in run.cell.batching
    }
    lengths = sorted((name for name in plain if "(" not in name), key=lambda name: plain[name])
    return _compared(results, [(longer, shorter) for shorter, longer in pairwise(lengths)])


def _compared(results: Results, sides: list[tuple[str, str]]) -> list[Row]:
    areas = _areas(results)
    out = []
    for left, right in sides:
        pairs = [pair for pair in areas.get(left, {}) if pair in areas.get(right, {})]
        subsets = [(pair, [pair]) for pair in pairs]
        if len(pairs) > 1:
            subsets.append((("all", "all"), pairs))
        for (task, memory), chosen in subsets:
            sides_of = [(areas[left][pair], areas[right][pair]) for pair in chosen]
            x, y = [_scores(a) for a, _ in sides_of], [_scores(b) for _, b in sides_of]
            low, high = statistics.difference_interval(statistics.mean, x, y)
            better = statistics.probability_of_improvement(x, y)
            better_low, better_high = statistics.improvement_interval(x, y)
            row: Row = {"better": left, "than": right, "task": task, "memory": memory, "seeds": min(map(len, x + y))}
            row |= {"difference": statistics.mean(x) - statistics.mean(y), "low": low, "high": high}
            row |= {"P(improvement)": better, "P low": better_low, "P high": better_high}
            # Runs with the same seed share network, random episodes and evaluation seeds; their difference varies less.
            paired = [np.asarray([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]) for a, b in sides_of]
            if all(map(len, paired)):
                low_paired, high_paired = statistics.interval(statistics.mean, paired)
                row |= {"paired": statistics.mean(paired), "paired low": low_paired, "paired high": high_paired}
            else:
                row |= blank("paired")
            out.append(row | {"verdict": verdict(low, high)})
    return out


def verdict(low: float, high: float) -> str:
    """Whether the interval of a difference confirms that the first side is better."""
    if math.isnan(low) or low <= 0 <= high:
        return "undecided"
    return "confirmed" if low > 0 else "contradicted"


def sensitivity(results: Results) -> list[Row]:
    """For each group: the share of the last value's sensitivity beyond the reward's memory length and beyond segments.

    "Beyond RML" counts observations older than those that the reward depends on. "Beyond L" counts observations at
    least L steps old, which a segment of L transitions does not contain, for every segment length of the grid.
    """
    replays = [run.cell.config.replay for run in results.runs]
    lengths = sorted({replay.segment_length for replay in replays if replay.batching == "segments"}) or [10]
    out = []
    for (task, memory, batching), runs in results.groups().items():
        measured = [run for run in runs if run.sensitivity]
        if not measured:
            continue
        found = [run.sensitivity or {} for run in measured]
        rml = found[0]["rml"]
        row: Row = {"task": task, "memory": memory, "batching": batching, "seeds": len(measured), "RML": rml}
        for name in ("0.5", "0.95", "0.99"):
            row[f"VML {float(name):.0%}"] = float(np.median([one["vml"][name] for one in found]))
        beyond = [one["beyond_rml"] for one in found]
        row |= with_interval("beyond RML", np.asarray(beyond)) if rml not in (None, "episode") else blank("beyond RML")
        row |= with_interval("first observation", np.asarray([one["first_share"] for one in found]))
        for length in lengths:
            shares = [float(run.profile[length:].sum()) for run in measured if run.profile is not None]
            row |= with_interval(f"beyond L={length}", np.asarray(shares))
        out.append(row)
    return out


def cost(results: Results) -> list[Row]:
    """For each group: the amount of training data and the time, means over seeds."""
    out = []
    for (task, memory, batching), runs in results.groups().items():

        def mean(column: str, runs: list[Run] = runs) -> float:
            return float(np.mean([run.rows[-1][column] for run in runs]))

        row: Row = {"task": task, "memory": memory, "batching": batching, "seeds": len(runs)}
        row |= {
            "training episodes": mean("episode"),
            "updates": mean("updates"),
            "real transitions": mean("transitions"),
        }
        row |= {"slots": mean("slots"), "padding": 1 - mean("transitions") / mean("slots") if mean("slots") else 0.0}
        row |= {
            "seconds": mean("seconds"),
            "seconds (deviation)": float(np.std([run.rows[-1]["seconds"] for run in runs])),
        }
        out.append(row)
    return out


def runs(results: Results) -> list[Row]:
    """Every cell of the grid: its status and its scores."""
    ended = {run.cell.name: run for run in results.runs}
    reasons = {gap.cell.name: gap.reason for gap in results.gaps}
    out = []
    for entry in results.grid["cells"]:
        run = ended.get(entry["name"])
        row: Row = {name: entry[name] for name in ("task", "memory", "batching", "seed")}
        found = statistics.summary_of(run.rows) if run else {}
        row |= {"final": run.summary["final_return"] if run else ""}
        row |= {"mean": found.get("auc", ""), "last": found.get("last", ""), "maximum": found.get("maximum", "")}
        row |= {"MMER": mmer(run.rows) if run else ""}
        reached = episodes_to(run.rows, run.target) if run else None
        row |= {"episodes to target": "" if reached is None else reached}
        row |= {"skipped updates": int(run.rows[-1]["skipped"]) if run else ""}
        row |= {
            "steps": int(run.rows[-1]["env_steps"]) if run else "",
            "seconds": run.rows[-1]["seconds"] if run else "",
        }
        out.append(row | {"status": "done" if run else reasons[entry["name"]]})
    return out


def _areas(results: Results) -> dict[str, dict[Pair, dict[int, float]]]:
    """Areas under the learning curve by batching, pair of task and memory, and seed."""
    areas: dict[str, dict[Pair, dict[int, float]]] = {}
    for (task, memory, batching), found in results.groups().items():
        values = {run.cell.seed: statistics.summary_of(run.rows)["auc"] for run in found}
        areas.setdefault(batching, {})[task, memory] = values
    return areas


def _scores(by_seed: dict[int, float]) -> np.ndarray:
    return np.asarray(list(by_seed.values()))


def with_interval(name: str, values: np.ndarray) -> Row:
    """The columns of a mean over seeds, (seeds,), and of its interval."""
    low, high = statistics.interval(statistics.mean, [values])
    return {name: float(np.mean(values)), f"{name} low": low, f"{name} high": high}


def blank(name: str) -> Row:
    """The same columns where there is nothing to show."""
    return {name: "", f"{name} low": "", f"{name} high": ""}


TABLES: dict[str, Callable[[Results], list[Row]]] = {
    "scores": scores,
    "against_published": against_published,
    "records": records,
    "memories": memories,
    "memory_pairs": memory_pairs,
    "performance_profiles": performance_profiles,
    "aggregate": aggregate,
    "tape_against_segments": against_segments,
    "longer_against_shorter": between_lengths,
    "sensitivity": sensitivity,
    "cost": cost,
    "runs": runs,
    "curves": curves,
}
"""The tables of a report, by the name of their CSV files."""
