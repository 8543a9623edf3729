"""Figures of runs: learning curves, and how far back values depend on observations."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memoroids._util.files import atomic_write
from memoroids.analysis.sensitivity import Profile
from memoroids.runs.metrics import mean_rows

Rows = Sequence[dict[str, float]]
"""The rows of metrics of one run."""


def draw_curve(path: Path, rows: Rows, title: str, way: str, *, random: float = math.nan) -> None:
    """Draws the figure of `curve_figure` to a file."""
    _save(curve_figure(rows, title, way, random=random), path)


def curve_figure(rows: Rows, title: str, way: str, *, random: float = math.nan) -> Any:
    """The learning curve: the returns of evaluations and of training episodes, by training episode.

    `way`: greedy or sampled, the evaluation that counts; the other one is drawn too if there is one. `random`: the mean
    return of random actions, drawn as a line; NaN if it is not known.
    """
    lines = {"training, exploring": ("train_return", [rows])}
    for other in ("greedy", "sampled"):
        if other != way and not all(math.isnan(row[f"eval_{other}"]) for row in rows):
            lines[f"evaluation, {other}"] = f"eval_{other}", [rows]
    lines[f"evaluation, {way}"] = "eval_return", [rows]
    return learning_curves(lines, title, "return", random=random)


def draw_comparison(
    path: Path, runs: Mapping[str, Sequence[Rows]], title: str, what: str, *, random: float = math.nan
) -> None:
    """Draws evaluation returns by training episode, given as label → the rows of one or several seeds.

    Of several seeds it draws the mean, and a band of one standard deviation to each side. `what`: what these returns
    are, for the axis. `random`: as for `curve_figure`.
    """
    lines = {label: ("eval_return", seeds) for label, seeds in runs.items()}
    _save(learning_curves(lines, title, what, random=random), path)


def learning_curves(
    lines: Mapping[str, tuple[str, Sequence[Rows]]], title: str, what: str, *, random: float = math.nan
) -> Any:
    """The figure of learning curves, given as label → a column of metrics and the rows of each seed.

    `random`: as for `curve_figure`. The legend stands below the axes, where it covers no curve.
    """
    names = [textwrap.fill(label, 80) for label in lines]
    entries = len(lines) + math.isfinite(random)
    columns = max(1, min(entries, 90 // (6 + max(map(len, names), default=0))))
    height = 0.22 * (sum(name.count("\n") + 1 for name in names) + math.isfinite(random)) / columns
    figure = _shown((7, 4.2 + height))
    axes = figure.add_subplot()
    for number, (name, (column, seeds)) in enumerate(zip(names, lines.values(), strict=True)):
        # All but the evaluation that counts is only context, so it is drawn less prominently.
        color, width = {"train_return": ("0.6", 1.0), "eval_return": (None, 2.0)}.get(column, ("0.3", 1.0))
        mean = mean_rows(seeds)
        episodes, values = (np.asarray([row[field] for row in mean]) for field in ("episode", column))
        style = ("-", "--", ":", "-.")[number // 10 % 4]  # colours repeat after ten
        (line,) = axes.plot(episodes, values, label=name, color=color, linewidth=width, linestyle=style)
        if len(seeds) > 1 and mean:
            spread = np.std([[row[column] for row in rows[: len(mean)]] for rows in seeds], axis=0, ddof=1)
            axes.fill_between(
                episodes, values - spread, values + spread, color=line.get_color(), alpha=0.2, linewidth=0
            )
    if math.isfinite(random):
        axes.axhline(random, color="0.2", linewidth=1.0, linestyle="--", label="random actions")
    axes.set_xlabel("training episodes")
    axes.set_ylabel(what)
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    legend = figure.legend(frameon=False, loc="outside lower center", ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a $ in the name of a directory is only that
    return figure


def _shown(size: tuple[float, float]) -> Any:
    """A figure that a notebook shows, as it does by itself only for those of pyplot."""
    from matplotlib.figure import Figure  # slow to import

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, format="png", dpi=100)
            return content.getvalue()

    return Shown(figsize=size, layout="constrained")


def _save(figure: Any, path: Path) -> None:
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
