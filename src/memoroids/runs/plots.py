"""Figures of runs: learning curves, and how far back values depend on observations."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memoroids._util.files import atomic_write
from memoroids.analysis.sensitivity import Profile


def draw_curve(path: Path, rows: Sequence[dict[str, float]], title: str, way: str) -> None:
    """Draws the learning curve: the returns of evaluations and of training episodes, by training episode.

    `way`: greedy or sampled, the evaluation that counts; the other one is drawn too if there is one.
    """
    lines = {"training, exploring": ("train_return", rows)}
    for other in ("greedy", "sampled"):
        if other != way and not all(math.isnan(row[f"eval_{other}"]) for row in rows):
            lines[f"evaluation, {other}"] = f"eval_{other}", rows
    lines[f"evaluation, {way}"] = "eval_return", rows
    _draw(path, lines, title, "return")


def draw_comparison(path: Path, runs: Mapping[str, Sequence[dict[str, float]]], title: str, what: str) -> None:
    """Draws the evaluation returns of several runs, given as label → rows, by training episode.

    `what`: what these returns are, for the axis.
    """
    lines = {label: ("eval_return", rows) for label, rows in runs.items()}
    _draw(path, lines, title, what)


def _draw(path: Path, lines: dict[str, tuple[str, Sequence[dict[str, float]]]], title: str, what: str) -> None:
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for label, (column, rows) in lines.items():
        # All but the evaluation that counts is only context, so it is drawn less prominently.
        color, width = {"train_return": ("0.6", 1.0), "eval_return": (None, 2.0)}.get(column, ("0.3", 1.0))
        episodes, values = [row["episode"] for row in rows], [row[column] for row in rows]
        axes.plot(episodes, values, label=label, color=color, linewidth=width)
    axes.set_xlabel("training episodes")
    axes.set_ylabel(what)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if len(lines) > 3:
        figure.set_size_inches(9, 4)
        figure.legend(frameon=False, loc="outside right upper")  # outside, so that it covers no curve
    else:
        axes.legend(frameon=False)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120, format=path.suffix.removeprefix(".") or "png")


def draw_profiles(
    path: Path,
    profiles: dict[str, Profile],
    *,
    rml: float | None = None,
    segment_length: int | None = None,
    title: str = "",
) -> None:
    """Draws the share of sensitivity by age and its cumulative sum for several profiles, given as label → profile.

    Vertical lines mark the reward memory length `rml` and the reach of segments of `segment_length`, if given.
    """
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    left.set_yscale("log", nonpositive="mask")
    left.set(ylim=(1e-6, 1.5), ylabel="share of the sensitivity")
    right.set(ylim=(0, 1.03), ylabel="share up to this age")
    for label, profile in profiles.items():
        age = np.arange(len(profile.share))
        left.plot(age, profile.share, ".-", label=label, linewidth=1.0, markersize=4)
        right.plot(age, profile.cumulative, label=label)
    for axes in (left, right):
        axes.set_xlabel("age of the observation [steps]")
        axes.grid(alpha=0.3)
        # Each line lies between the last age within reach and the first age beyond it.
        if rml is not None and rml < math.inf:
            axes.axvline(rml + 0.5, color="0.2", linestyle="--", label=f"RML {rml:g}")
        if segment_length is not None:
            axes.axvline(segment_length - 0.5, color="0.2", linestyle=":", label=f"segments of {segment_length}")
    figure.suptitle(title)
    if len(profiles) > 3:
        figure.set_size_inches(12, 4)
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc="outside right upper")  # outside, so that it covers no curve
    else:
        right.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)


def draw_heatmap(path: Path, log: dict[int, np.ndarray], *, rml: float | None = None, title: str = "") -> None:
    """Draws the share of sensitivity by age over training, as read by `read_log`.

    Each profile fills the time since the previous one.
    """
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    figure.colorbar(heat(axes, log, rml=rml, title=title), label="share of the sensitivity", extend="min")
    axes.set(ylabel="age of the observation [steps]")
    figure.savefig(path, dpi=120)


def heat(axes: Any, log: dict[int, np.ndarray], *, rml: float | None = None, title: str = "") -> Any:
    """Draws one heat map into matplotlib axes and returns its mesh, from which a colour bar can be made."""
    from matplotlib.colors import LogNorm

    oldest = max((len(share) for share in log.values()), default=1)
    image = np.full((oldest, len(log)), np.nan)
    for column, share in enumerate(log.values()):
        image[: len(share), column] = np.maximum(share, 1e-4)
    axes.set_facecolor("0.3")  # ages that no episode reached
    edges = np.asarray([0, *log])
    mesh = axes.pcolormesh(edges, np.arange(oldest + 1) - 0.5, image, norm=LogNorm(1e-4, 1.0), rasterized=True)
    if rml is not None and rml < math.inf:
        axes.axhline(rml + 0.5, color="white", linestyle="--", label=f"RML {rml:g}")
        axes.legend(frameon=False, labelcolor="white")
    axes.set(xlabel="training episodes", title=title)
    return mesh
