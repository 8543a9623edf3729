"""The figures of a grid, drawn from the numbers of its tables, as PNG and PDF."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memoroids.experiments import memory_comparison, statistics, tables
from memoroids.experiments.grid import TAPE
from memoroids.experiments.results import Results, Run
from memoroids.runs.plots import heat
from memoroids.runs.run_directory import SENSITIVITY
from memoroids.runs.sensitivity_log import read_log

# Tapes have one strong colour; segments have the shades of a colour map, by length.
_TAPE_COLOR = "tab:red"
_MOST_BANDS = 8
"""The most profiles whose intervals can be told apart in one figure."""


def draw(results: Results, directory: Path) -> dict[str, str]:
    """Draws every figure that has results, as PNG and PDF. Returns name → caption, in the order of the page.

    Needs no display.
    """
    directory.mkdir(parents=True, exist_ok=True)
    captions: dict[str, str] = {}
    for task in dict.fromkeys(run.cell.task for run in results.runs):
        name = f"curves-{slug(task)}"
        _save(_curves(results, task), directory / name)
        captions[name] = (
            f"{task}: mean return of {results.way} evaluation episodes during training, with a 95% bootstrap interval "
            "over seeds."
        )
    if profiles := memory_comparison.performance_profiles(results):
        _save(_profiles(profiles), directory / "profiles")
        captions["profiles"] = (
            "Performance profiles: the share of runs whose final return is above a threshold, the mean over the tasks "
            "that all memories were trained on, with 95% bootstrap intervals over seeds where there are few memories."
        )
    compared = tables.against_segments(results)
    comparison = [row for row in compared if row["task"] != "all" and row["better"] == TAPE]
    if comparison and not all(math.isnan(row["low"]) for row in comparison):
        _save(_forest(comparison), directory / "comparison")
        captions["comparison"] = (
            "Tapes against segments: difference of mean return over training (area under the curve), 95% interval. "
            "Right of the line, tapes learn better."
        )
    for task in dict.fromkeys(run.cell.task for run in results.runs if run.profile is not None):
        name = f"sensitivity-{slug(task)}"
        _save(_sensitivity(results, task), directory / name)
        captions[name] = (
            f"{task}: cumulative share of the last value's sensitivity by the age of the observation, mean over seeds. "
            "Left of the dotted lines are the observations that the reward depends on (RML) and those that a segment "
            "of L transitions contains (L)."
        )
        if logs := {key: log for key, log in _logs(results, task).items() if log}:
            _save(_heat(results, task, logs), directory / f"heat-{slug(task)}")
            captions[f"heat-{slug(task)}"] = (
                f"{task}: share of sensitivity by the age of the observation (vertical axis) during training "
                "(horizontal axis), first seed. A memory that keeps only what the reward depends on is dark above the "
                "dashed line (RML)."
            )
    return captions


def slug(name: str) -> str:
    """The name of a task as part of a file name."""
    return "".join(c if c.isalnum() else "-" for c in name).strip("-")


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path.with_suffix(".png"), dpi=110)
    # Without a date, equal numbers give an identical file.
    figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})


def _panels(count: int, width: float = 4.2, height: float = 3.2) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure  # slow to import

    columns = min(count if count <= 4 else -(-count // 2), 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, list(axes[:count])


def _colors(labels: Sequence[str]) -> dict[str, Any]:
    from matplotlib import colormaps

    others = [label for label in labels if label != TAPE]
    shades = colormaps["viridis"](np.linspace(0.85, 0.1, max(len(others), 1)))
    return {TAPE: _TAPE_COLOR} | dict(zip(others, shades, strict=False))


def _legend(figure: Any, axes: Sequence[Any]) -> None:
    """One legend below the panels for the lines of all panels; in an unfinished grid, some panels lack lines."""
    pairs = [pair for axis in axes for pair in zip(*axis.get_legend_handles_labels(), strict=True)]
    entries = {label: handle for handle, label in reversed(pairs)}
    labels = list(dict.fromkeys(label for _, label in pairs))
    handles = [entries[label] for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=max(len(labels), 1), frameon=False, fontsize=9)


def _of_task(results: Results, task: str) -> dict[tuple[str, str], list[Run]]:
    """The groups of one task, by memory and batching."""
    return {(memory, batching): runs for (name, memory, batching), runs in results.groups().items() if name == task}


def _curves(results: Results, task: str) -> Any:
    groups = _of_task(results, task)
    memories = list(dict.fromkeys(memory for memory, _ in groups))
    colors = _colors(list(dict.fromkeys(batching for _, batching in groups)))
    figure, axes = _panels(len(memories))
    for memory, axis in zip(memories, axes, strict=True):
        for (name, batching), runs in groups.items():
            if name != memory:
                continue
            episodes, values = tables.aligned(runs, "eval_return")
            mean, low, high = statistics.curve_interval(values)
            width, order = (2.0, 3) if batching == TAPE else (1.3, 2)
            axis.plot(episodes, mean, label=batching, color=colors[batching], linewidth=width, zorder=order)
            if len(episodes) == 1:  # which is no line
                axis.scatter(episodes, mean, color=colors[batching], zorder=order)
            axis.fill_between(episodes, low, high, color=colors[batching], alpha=0.15, linewidth=0)
        axis.set_title(f"{task}, {memory}", fontsize=10)
        axis.set_xlabel("training episodes")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"return of {results.way} episodes")
    _legend(figure, axes)
    return figure


def _profiles(rows: Sequence[dict[str, Any]]) -> Any:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    memories = list(dict.fromkeys(row["memory"] for row in rows))
    colors = colormaps["turbo"](np.linspace(0.05, 0.95, len(memories)))
    figure = Figure(figsize=(8, 4.5 + 0.18 * -(-len(memories) // 5)), layout="constrained")
    axis = figure.subplots()
    for memory, color in zip(memories, colors, strict=True):
        own = [row for row in rows if row["memory"] == memory]
        at, share, low, high = ([row[name] for row in own] for name in ("threshold", "share", "low", "high"))
        axis.plot(at, share, label=memory, color=color, linewidth=1.6)
        if len(memories) <= _MOST_BANDS:
            axis.fill_between(at, low, high, color=color, alpha=0.1, linewidth=0)
    axis.set_xlabel("final return")
    axis.set_ylabel("share of runs above")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def _forest(rows: Sequence[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(row["than"] for row in rows))
    pairs = list(dict.fromkeys((row["task"], row["memory"]) for row in rows))
    colors = _colors([TAPE, *labels])
    figure = Figure(figsize=(8, 1.2 + 0.2 * len(rows) + 0.2 * len(pairs)), layout="constrained")
    axis = figure.subplots()
    ticks = []
    position = 0.0
    for pair in pairs:
        start = position
        for row in (row for row in rows if (row["task"], row["memory"]) == pair):
            axis.plot([row["low"], row["high"]], [position, position], color=colors[row["than"]], linewidth=2)
            axis.plot(row["difference"], position, "o", color=colors[row["than"]], markersize=5)
            position += 1
        ticks.append((start + position - 1) / 2)
        position += 1
    axis.axvline(0, color="0.3", linewidth=1)
    axis.set_yticks(ticks, [f"{task}, {memory}" for task, memory in pairs], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel("mean return over training: tapes minus segments")
    axis.grid(axis="x", alpha=0.3)
    for label in labels:
        axis.plot([], [], "o-", color=colors[label], label=f"against {label}")
    figure.legend(loc="outside lower center", ncols=min(len(labels), 4), frameon=False, fontsize=9)
    return figure


def _sensitivity(results: Results, task: str) -> Any:
    groups = _of_task(results, task)
    batchings = list(dict.fromkeys(batching for _, batching in groups))
    colors = {memory: f"C{i}" for i, memory in enumerate(dict.fromkeys(memory for memory, _ in groups))}
    figure, axes = _panels(len(batchings))
    for batching, axis in zip(batchings, axes, strict=True):
        measured: list[Run] = []
        for (memory, name), runs in groups.items():
            found = [run for run in runs if run.profile is not None]
            if name != batching or not found:
                continue
            measured += found
            ages = max(len(run.profile) for run in found if run.profile is not None)
            shares = [np.pad(run.profile, (0, ages - len(run.profile))) for run in found if run.profile is not None]
            cumulative = np.cumsum(np.mean(shares, axis=0))
            axis.plot(np.arange(ages), cumulative, label=memory, color=colors[memory], linewidth=1.8)
        marks = {}
        if measured:
            rml = (measured[0].sensitivity or {}).get("rml")
            marks = {"RML": rml} if isinstance(rml, int | float) else {}
            config = measured[0].cell.config
            if config.replay.batching == "segments":
                marks["L"] = config.replay.segment_length - 1
        oldest = max((len(run.profile) for run in measured if run.profile is not None), default=0)
        for i, (mark, age) in enumerate((mark, age) for mark, age in marks.items() if age < oldest):
            axis.axvline(age + 0.5, color="0.2", linestyle=":", linewidth=1.2)
            axis.text(age + 0.5, 0.03 + 0.07 * i, f" {mark}", fontsize=8)
        axis.set_title(f"{task}, {batching}", fontsize=10)
        axis.set_xlabel("age of the observation (steps back)")
        axis.set_ylim(0, 1.03)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("cumulative share of sensitivity")
    _legend(figure, axes)
    return figure


def _logs(results: Results, task: str) -> dict[tuple[str, str], dict[int, np.ndarray]]:
    """The sensitivity log of the first seed of each memory and batching."""
    logs = {}
    for key, runs in _of_task(results, task).items():
        path = runs[0].path / SENSITIVITY
        if path.exists():
            logs[key] = read_log(path)
    return logs


def _heat(results: Results, task: str, logs: dict[tuple[str, str], dict[int, np.ndarray]]) -> Any:
    groups = _of_task(results, task)
    figure, axes = _panels(len(logs))
    mesh = None
    for (key, log), axis in zip(logs.items(), axes, strict=True):
        rml = (groups[key][0].sensitivity or {}).get("rml")
        mesh = heat(axis, log, rml=rml if isinstance(rml, int | float) else None, title=", ".join(key))
    figure.colorbar(mesh, ax=axes, label="share of the sensitivity", extend="min")
    axes[0].set_ylabel("age of the observation [steps]")
    return figure
