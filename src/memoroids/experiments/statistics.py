"""Aggregate statistics of scores over seeds and tasks, with bootstrap intervals.

Strata are tasks: a mapping or a sequence of arrays, one array of scores per task with the seeds on its last axis.
Intervals resample seeds within each task, never across tasks, with a fixed random seed: equal scores give equal
intervals.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Strata = Mapping[str, ArrayLike] | Sequence[ArrayLike]


class Curve(NamedTuple):
    """A mean curve and its pointwise interval, each (points,) float64."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def mean(scores: Strata) -> Any:
    """The mean over tasks of the mean over seeds: every task has the same weight, whatever its number of seeds.

    **Arguments:** `scores`, strata of (…, seeds). **Returns:** a float64, or an array (…) if there are leading axes.
    Raises `ValueError` if there are no tasks or no seeds, or a score is not finite.
    """
    return np.mean([task.mean(axis=-1) for task in _tasks(scores)], axis=0)


def iqm(scores: Strata) -> Any:
    """The interquartile mean: the mean of the middle half of the pooled scores of all tasks.

    If a quarter of the n scores is not a whole number, the scores at both edges count fractionally, so that exactly
    n / 2 are averaged. A task with more seeds has more weight.

    **Arguments:** `scores`, strata of (…, seeds). **Returns:** a float64, or an array (…) if there are leading axes.
    Raises `ValueError` as `mean`. Source: Agarwal et al. 2021, Section 4.3.
    """
    pooled = np.sort(np.concatenate(_tasks(scores), axis=-1), axis=-1)
    n = pooled.shape[-1]
    # The i-th smallest score covers [i, i + 1] of [0, n]; its weight is the part of this in the middle half.
    edges = np.clip(np.arange(n + 1), n / 4, 3 * n / 4)
    return pooled @ np.diff(edges) / (n / 2)


def interval(
    statistic: Callable[[list[np.ndarray]], Any],
    strata: Strata,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval (low, high) of a statistic of all tasks; resamples seeds within each task.

    **Arguments:** `statistic`, such as `mean` or `iqm`: maps a list of arrays (draws, seeds), one per task, to an array
    (draws,), so that all resamples are computed at once; `strata` of (seeds,); `level` in (0, 1); `draws` ≥ 1.

    **Returns:** two floats; (nan, nan) if a task has only one seed, which says nothing about the variation over seeds.
    With few seeds the interval is too narrow, like every percentile bootstrap interval: with ten normal scores it
    contains the mean in 90% of cases instead of 95%.
    Raises `ValueError` like `mean`, or if `level`, `draws` or the statistic's shape is invalid.
    Source: Efron & Tibshirani 1993, Chapter 13.
    """
    tasks = _tasks(strata, axes=1)
    generator = _generator(level, draws, seed)
    if _single(tasks):
        return np.nan, np.nan
    low, high = _percentiles(statistic(_resampled(generator, tasks, draws)), level, (draws,))
    return float(low), float(high)


def difference_interval(
    statistic: Callable[[list[np.ndarray]], Any],
    x: Strata,
    y: Strata,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval (low, high) of statistic(x) - statistic(y); resamples both sides independently.

    **Arguments:** `x`, `y`, strata of (seeds,) with the same tasks; the numbers of seeds may differ, and seeds are not
    paired; the others as in `interval`. **Returns:** two floats; (nan, nan) if a task has only one seed on either side.
    Raises `ValueError` like `interval`, or if the tasks differ.
    """
    ours, theirs = _matched(x, y)
    generator = _generator(level, draws, seed)
    if _single(ours + theirs):
        return np.nan, np.nan
    drawn = [np.asarray(statistic(_resampled(generator, side, draws))) for side in (ours, theirs)]
    low, high = _percentiles(drawn[0] - drawn[1], level, (draws,))
    return float(low), float(high)


def curve_interval(curves: Strata | np.ndarray, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Curve:
    """The mean curve over seeds and its pointwise percentile bootstrap interval.

    **Arguments:** `curves` (seeds, points) of one task, or strata of such arrays with equal points, averaged as in
    `mean`; the others as in `interval`. Whole curves are resampled: one draw of seeds serves all points.

    The interval is NaN if a task has only one seed. Raises `ValueError` like `interval`.
    """
    if not isinstance(curves, Mapping) and len(curves) and np.ndim(curves[0]) == 1:
        curves = [np.asarray(curves)]
    tasks = _tasks(curves, axes=2)
    generator = _generator(level, draws, seed)
    points = {task.shape[1] for task in tasks}
    if len(points) > 1:
        raise ValueError(f"the curves of all tasks need the same points, got {', '.join(map(str, sorted(points)))}")
    middle = np.mean([task.mean(axis=0) for task in tasks], axis=0)
    if _single(tasks):
        nothing = np.full(middle.shape, np.nan)
        return Curve(middle, nothing, nothing)
    means = np.mean([_weights(generator, len(task), draws) @ task for task in tasks], axis=0)
    low, high = _percentiles(means, level, (draws, *middle.shape))
    return Curve(middle, low, high)


def probability_of_improvement(x: Strata, y: Strata) -> float:
    """P(X > Y) + P(X = Y) / 2 for a random seed of `x` and a random seed of `y`, averaged over tasks.

    **Arguments:** strata of (seeds,) with the same tasks; the numbers of seeds may differ.
    Raises `ValueError` like `mean`, or if the tasks differ. Source: Agarwal et al. 2021, Section 4.3.
    """
    return float(np.mean([_wins(*sides).mean() for sides in zip(*_matched(x, y), strict=True)]))


def improvement_interval(
    x: Strata, y: Strata, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval (low, high) of `probability_of_improvement`; resamples both sides.

    **Arguments:** `x`, `y` as there; the others as in `interval`. **Returns:** two floats; (nan, nan) if a task has
    only one seed on either side. Raises `ValueError` like both.
    """
    ours, theirs = _matched(x, y)
    generator = _generator(level, draws, seed)
    if _single(ours + theirs):
        return np.nan, np.nan
    drawn = []
    for sides in zip(ours, theirs, strict=True):
        weights_x, weights_y = (_weights(generator, len(side), draws) for side in sides)
        drawn.append(np.sum(weights_x @ _wins(*sides) * weights_y, axis=1))
    low, high = _percentiles(np.mean(drawn, axis=0), level, (draws,))
    return float(low), float(high)


def area_under_curve(episodes: ArrayLike, returns: ArrayLike) -> Any:
    """The mean return from the first to the last evaluation: the area by the trapezoidal rule, divided by the range.

    **Arguments:** `episodes` (points,), increasing, with any spacing; `returns` (…, points).
    **Returns:** a float64, or an array (…) if there are leading axes; with a single point, its value.
    Raises `ValueError` if the shapes do not match, there are no points, or a number is not finite.
    """
    at, values = np.asarray(episodes, np.float64), np.asarray(returns, np.float64)
    if at.ndim != 1 or not at.size or values.shape[-1:] != at.shape:
        raise ValueError(f"a curve needs one return for each of its episodes, got shapes {at.shape} and {values.shape}")
    if not (np.isfinite(at).all() and np.isfinite(values).all()):
        raise ValueError("a curve needs finite episodes and returns")
    if (np.diff(at) <= 0).any():
        raise ValueError("the episodes of a curve must increase")
    if at.size == 1:
        return values[..., 0]
    return np.trapezoid(values, at) / (at[-1] - at[0])


def summary_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Summarises a run's evaluations, from its metric rows: `last`, `mean`, `maximum` and `auc`.

    `mean` is over evaluations; `auc` is their `area_under_curve`, where of evaluations between which no episode ended
    only the last one counts. The maximum selects the luckiest evaluation and grows with their number; it is not a
    score. Raises `ValueError` like `area_under_curve`.
    """
    episodes, returns = (np.asarray([row[name] for row in rows], np.float64) for name in ("episode", "eval_return"))
    counts = np.append(np.diff(episodes) != 0, True)[: len(rows)]
    area = area_under_curve(episodes[counts], returns[counts])
    figures = {"last": returns[-1], "mean": returns.mean(), "maximum": returns.max(), "auc": area}
    return {name: float(value) for name, value in figures.items()}


def _tasks(strata: Strata | np.ndarray, axes: int | None = None) -> list[np.ndarray]:
    """The strata as float64 arrays, checked: at least one seed, finite scores, and `axes` axes if it is given."""
    named = strata.items() if isinstance(strata, Mapping) else enumerate(strata)
    tasks = {name: np.asarray(scores, np.float64) for name, scores in named}
    if not tasks:
        raise ValueError("scores of at least one task are needed, got none")
    for name, scores in tasks.items():
        if not scores.ndim or axes not in (None, scores.ndim) or not scores.size:
            raise ValueError(f"task {name!r}: needs an array of scores with seeds, got shape {scores.shape}")
        if not np.isfinite(scores).all():
            raise ValueError(f"task {name!r}: {np.sum(~np.isfinite(scores))} of {scores.size} scores are not finite")
    return list(tasks.values())


def _matched(x: Strata, y: Strata) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The arrays (seeds,) of two strata, task by task in the order of `x`."""
    if isinstance(x, Mapping) and isinstance(y, Mapping):
        if set(x) != set(y):
            raise ValueError(f"both sides need the same tasks, got {', '.join(x)} and {', '.join(y)}")
        y = {name: y[name] for name in x}
    ours, theirs = _tasks(x, axes=1), _tasks(y, axes=1)
    if len(ours) != len(theirs):
        raise ValueError(f"both sides need the same tasks, got {len(ours)} and {len(theirs)} of them")
    return ours, theirs


def _wins(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(seeds of x, seeds of y): 1 if x > y, 1/2 if they are equal, else 0."""
    return np.heaviside(x[:, None] - y, 0.5)


def _single(tasks: list[np.ndarray]) -> bool:
    """Whether any task has only one seed."""
    return min(len(task) for task in tasks) < 2


def _generator(level: float, draws: int, seed: int) -> np.random.Generator:
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"an interval needs a level in (0, 1) and at least 1 draw, got {level} and {draws}")
    return np.random.default_rng(seed)


def _resampled(generator: np.random.Generator, tasks: list[np.ndarray], draws: int) -> list[np.ndarray]:
    """For each task (seeds,) an array (draws, seeds): each row is drawn from its seeds with replacement."""
    return [task[generator.integers(len(task), size=(draws, len(task)))] for task in tasks]


def _weights(generator: np.random.Generator, n: int, draws: int) -> np.ndarray:
    """(draws, n): the share of each of n seeds in a resample of size n."""
    return generator.multinomial(n, np.full(n, 1 / n), size=draws) / n


def _percentiles(drawn: Any, level: float, shape: tuple[int, ...]) -> np.ndarray:
    """The two quantiles over the first axis that enclose the central `level` of the draws."""
    if np.shape(drawn) != shape:
        raise ValueError(f"a statistic must reduce the last axis: for {shape[0]} draws it gave shape {np.shape(drawn)}")
    return np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2), axis=0)
