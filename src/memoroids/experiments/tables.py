"""The tables of a grid: scores, comparisons, sensitivity and cost, each a list of rows for a CSV file or a page."""

import csv
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from memoroids.experiments import statistics
from memoroids.experiments.results import Results, Run
from memoroids.runs.recorder import episodes_to

Row = dict[str, Any]
Pair = tuple[str, str]
TAPE = "TBB"


def write(rows: Sequence[Row], path: Path) -> None:
    """Writes rows as CSV; an empty file where there are none."""
    with path.open("w", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def read(path: Path) -> list[Row]:
    """The rows of a CSV file, numbers as floats."""

    def value(text: str) -> str | float:
        try:
            return float(text)
        except ValueError:
            return text

    with path.open(newline="") as file:
        return [{name: value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def scores(results: Results) -> list[Row]:
    """For each group of seeds: last, mean and maximum of the evaluation return, and the final return, with intervals.

    The mean over training is the area under the curve. The maximum was picked on the evaluations it is a maximum of, so
    it is no score; the final return is of fresh seeds that nothing was chosen by.
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
            row |= _with_interval(name, np.asarray(values))
        reached = [episodes_to(run.rows, 0.95) for run in runs]
        middle = median(math.inf if episodes is None else episodes for episodes in reached)
        row["reached 0.95"] = sum(episodes is not None for episodes in reached)
        row["episodes to 0.95 (median)"] = "" if math.isinf(middle) else middle
        out.append(row)
    return out


def curves(results: Results) -> list[Row]:
    """Mean evaluation return and its interval over seeds, for each group and each evaluation that all seeds have."""
    out = []
    for (task, memory, batching), runs in results.groups().items():
        episodes, values = aligned(runs, "eval_return")
        mean, low, high = statistics.curve_interval(values)
        for i, episode in enumerate(episodes):
            row = {"task": task, "memory": memory, "batching": batching, "episode": int(episode)}
            out.append(row | {"mean": mean[i], "low": low[i], "high": high[i]})
    return out


def aligned(runs: Sequence[Run], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Training episodes (points,) and a column's values (seeds, points), at the evaluations that all runs have."""
    common = sorted(set.intersection(*(set(run.column("episode")) for run in runs)))
    values = []
    for run in runs:
        at = dict(zip(run.column("episode"), run.column(column), strict=True))
        values.append([at[episode] for episode in common])
    return np.asarray(common), np.asarray(values)


def aggregate(results: Results) -> list[Row]:
    """For each batching over all pairs of task and memory: mean and interquartile mean of the area under the curve.

    Only pairs that have every batching count, so that all rows are of the same pairs.
    """
    areas = _areas(results)
    whole = set.intersection(*(set(of) for of in areas.values())) if areas else set()
    out = []
    for batching, of in areas.items():
        strata = [_scores(values) for pair, values in of.items() if pair in whole]
        if strata:
            row: Row = {"batching": batching, "pairs": len(strata), "seeds": sum(len(values) for values in strata)}
            for name, statistic in (("mean", statistics.mean), ("interquartile mean", statistics.iqm)):
                low, high = statistics.interval(statistic, strata)
                row |= {name: statistic(strata), f"{name} low": low, f"{name} high": high}
            out.append(row)
    return out


def against_segments(results: Results) -> list[Row]:
    """Tapes against each way of segments: difference of areas under the curve, and probability of improvement.

    `difference` takes the two sides for independent, and `verdict` is of its interval; `paired` is the mean difference
    of runs with the same seed. An ablation's segments stand against plain tapes, and against tapes with
    the same change.
    """
    names = list(_areas(results))
    changed = [name for name in names if name.startswith(f"{TAPE} ")]
    sides = [(TAPE, name) for name in names if name.startswith("SBB")]
    sides += [(tape, name) for tape in changed for _, name in sides if tape.removeprefix(TAPE) in name]
    return _compared(results, sides)


def between_lengths(results: Results) -> list[Row]:
    """Longer segments against the next shorter ones."""
    plain = {run.cell.batching: run.cell.config.segment_length for run in results.runs if "SBB" in run.cell.batching}
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
            # Runs of one seed share network, random episodes and evaluation seeds; their difference varies less.
            paired = [np.asarray([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]) for a, b in sides_of]
            if all(map(len, paired)):
                low_paired, high_paired = statistics.interval(statistics.mean, paired)
                row |= {"paired": statistics.mean(paired), "paired low": low_paired, "paired high": high_paired}
            else:
                row |= _blank("paired")
            out.append(row | {"verdict": verdict(low, high)})
    return out


def verdict(low: float, high: float) -> str:
    """What an interval of a difference says of "the first is better"."""
    if math.isnan(low) or low <= 0 <= high:
        return "undecided"
    return "confirmed" if low > 0 else "contradicted"


def sensitivity(results: Results) -> list[Row]:
    """For each group: how much of the last value's sensitivity lies out of reach of the reward and of segments.

    Beyond L: at observations L steps back and older, which a segment of L transitions cannot reach back to; for tapes
    at every length of the grid's segments.
    """
    configs = [run.cell.config for run in results.runs]
    lengths = sorted({config.segment_length for config in configs if config.batching == "segments"}) or [10]
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
        row |= (
            _with_interval("beyond RML", np.asarray(beyond)) if rml not in (None, "episode") else _blank("beyond RML")
        )
        row |= _with_interval("first observation", np.asarray([one["first_share"] for one in found]))
        for length in lengths:
            shares = [float(run.profile[length:].sum()) for run in measured if run.profile is not None]
            row |= _with_interval(f"beyond L={length}", np.asarray(shares))
        out.append(row)
    return out


def cost(results: Results) -> list[Row]:
    """For each group: what was trained on and how long it took, means over seeds."""
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
    """Every cell of the grid: how it ended, and its numbers."""
    ended = {run.cell.name: run for run in results.runs}
    reasons = {gap.cell.name: gap.reason for gap in results.gaps}
    out = []
    for entry in results.grid["cells"]:
        run = ended.get(entry["name"])
        row: Row = {name: entry[name] for name in ("task", "memory", "batching", "seed")}
        found = statistics.summary_of(run.rows) if run else {}
        row |= {"final": run.summary["final_return"] if run else ""}
        row |= {"mean": found.get("auc", ""), "last": found.get("last", ""), "maximum": found.get("maximum", "")}
        reached = episodes_to(run.rows, 0.95) if run else None
        row |= {"episodes to 0.95": "" if reached is None else reached}
        row |= {"skipped updates": int(run.rows[-1]["skipped"]) if run else ""}
        out.append(row | {"status": "done" if run else reasons[entry["name"]]})
    return out


def _areas(results: Results) -> dict[str, dict[Pair, dict[int, float]]]:
    """Areas under the curve by batching, pair and seed."""
    areas: dict[str, dict[Pair, dict[int, float]]] = {}
    for (task, memory, batching), found in results.groups().items():
        values = {run.cell.seed: statistics.summary_of(run.rows)["auc"] for run in found}
        areas.setdefault(batching, {})[task, memory] = values
    return areas


def _scores(by_seed: dict[int, float]) -> np.ndarray:
    return np.asarray(list(by_seed.values()))


def _with_interval(name: str, values: np.ndarray) -> Row:
    low, high = statistics.interval(statistics.mean, [values])
    return {name: float(np.mean(values)), f"{name} low": low, f"{name} high": high}


def _blank(name: str) -> Row:
    return {name: "", f"{name} low": "", f"{name} high": ""}


# Mean return of the best of 13 memories under PPO, 15 million steps (Morad et al. 2023, POPGym, Table 5): Easy, Medium,
# Hard. What is not here was not at hand.
PUBLISHED: dict[str, tuple[float, float, float]] = {
    "RepeatFirst": (1.0, 1.0, 0.97),
    "RepeatPrevious": (1.0, 0.79, 0.19),
    "CountRecall": (0.51, -0.52, -0.47),
    "Autoencode": (-0.28, -0.42, -0.45),
    "NoisyPositionOnlyCartPole": (1.0, 0.66, 0.40),
    "MultiarmedBandit": (0.63, 0.60, 0.57),
}
LEVELS = ("Easy", "Medium", "Hard")


def against_published(results: Results) -> list[Row]:
    """For each task at each level: the memory with the best final return, and POPGym's best published; PPO only."""
    best: dict[str, tuple[float, str, list[Run]]] = {}
    for (task, memory, _), runs in results.groups().items():
        if runs[0].cell.config.algorithm != "ppo":
            continue
        final = float(np.mean([run.summary["final_return"] for run in runs]))
        if task not in best or final > best[task][0]:
            best[task] = final, memory, runs
    out = []
    for task, (final, memory, runs) in best.items():
        level = next((level for level in LEVELS if task.endswith(level)), "")
        published = PUBLISHED.get(task.removesuffix(level))
        number = None if published is None or not level else published[LEVELS.index(level)]
        row: Row = {"task": task, "memory": memory, "seeds": len(runs), "final": final}
        row |= {"steps": float(np.mean([run.summary["env_steps"] for run in runs]))}
        row |= {"seconds": float(np.mean([run.summary["seconds"] for run in runs]))}
        row |= {"published": "" if number is None else number}
        out.append(row | {"reached": "" if number is None else "yes" if final >= number - 0.005 else "no"})
    return out


TABLES: dict[str, Callable[[Results], list[Row]]] = {
    "scores": scores,
    "against_published": against_published,
    "aggregate": aggregate,
    "tape_against_segments": against_segments,
    "longer_against_shorter": between_lengths,
    "sensitivity": sensitivity,
    "cost": cost,
    "runs": runs,
    "curves": curves,
}
"""Every table of a report, by the name of its CSV file."""
