"""Statistics of scores against hand-computed values, slow loops, SciPy, and coverage on data with a known mean."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from memoroids.experiments.statistics import (
    area_under_curve,
    curve_interval,
    difference_interval,
    improvement_interval,
    interval,
    iqm,
    mean,
    probability_of_improvement,
    summary_of,
)

TASKS = {"first": [1.0, 2.0, 6.0], "second": [10.0, 20.0]}


# --- Points


def test_the_mean_weighs_every_task_alike():
    assert mean(TASKS) == 9.0  # (3 + 15) / 2, not 39 / 5
    assert mean(list(TASKS.values())) == 9.0


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([5], 5),
        ([1, 3], 2),
        ([0, 1, 100], (0.25 * 0 + 1 + 0.25 * 100) / 1.5),
        ([-100, 1, 2, 100], 1.5),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 90], (0.5 * 2 + 3 + 4 + 5 + 6 + 0.5 * 7) / 5),
    ],
)
def test_the_interquartile_mean_by_hand(scores: list[float], expected: float):
    assert iqm([scores[::-1]]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", range(1, 24))
def test_the_interquartile_mean_is_a_trimmed_mean_of_scores_written_four_times(n: int, rng: np.random.Generator):
    scores = rng.normal(size=n)
    # A quarter of 4n values is exactly n, so SciPy, which trims an integer number of values, is exact here.
    assert iqm([scores]) == pytest.approx(stats.trim_mean(np.repeat(scores, 4), 0.25), rel=1e-12)
    if n % 4 == 0:
        assert iqm([scores]) == pytest.approx(stats.trim_mean(scores, 0.25), rel=1e-12)


def test_the_interquartile_mean_pools_the_tasks():
    assert iqm({"low": [0, 0, 0, 0], "high": [8, 8, 8, 8]}) == 4.0
    assert iqm({"one": [0, 0], "many": [8] * 6}) == 8.0  # the lowest quarter is trimmed


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_leading_axes_are_computed_apart(statistic: Callable[..., Any], rng: np.random.Generator):
    tasks = [rng.normal(size=(7, 5)), rng.normal(size=(7, 3))]
    expected = [statistic([task[i] for task in tasks]) for i in range(7)]
    np.testing.assert_allclose(statistic(tasks), expected, rtol=1e-12)


# --- Intervals


def slow_bootstrap(tasks: list[np.ndarray], draws: int) -> np.ndarray:
    """Means over tasks of the means of resampled seeds, computed one resample at a time."""
    rng = np.random.default_rng(123)
    return np.asarray([np.mean([rng.choice(task, len(task)).mean() for task in tasks]) for _ in range(draws)])


def test_an_interval_is_that_of_a_slow_bootstrap(rng: np.random.Generator):
    tasks = [rng.exponential(size=8), 50 + 3 * rng.exponential(size=5)]
    for level in (0.5, 0.95):
        expected = np.quantile(slow_bootstrap(tasks, 8_000), ((1 - level) / 2, (1 + level) / 2))
        # Two bootstraps differ by the noise of their draws, a few percent of the width.
        np.testing.assert_allclose(interval(mean, tasks, level, draws=8_000), expected, atol=0.06 * np.ptp(expected))


def test_two_seeds_have_three_resamples_of_known_probability():
    # (0, 0), (0, 1) or (1, 0), (1, 1): the mean is 0, 1/2 and 1 with probability 1/4, 1/2 and 1/4.
    # The same holds for a curve of one point and for the probability of improvement over seeds at 1/2.
    for level, expected in ((0.4, (0.5, 0.5)), (0.6, (0.0, 1.0))):
        assert interval(mean, [[0.0, 1.0]], level=level) == expected
        assert curve_interval([[0.0], [1.0]], level=level)[1:] == expected
        assert improvement_interval([[0.0, 1.0]], [[0.5, 0.5]], level=level) == expected


def test_seeds_are_resampled_within_their_task(rng: np.random.Generator):
    near = [rng.normal(size=10), rng.normal(size=10)]
    apart = [near[0], near[1] + 1_000]
    np.testing.assert_allclose(interval(mean, apart), np.asarray(interval(mean, near)) + 500, rtol=1e-12)


def test_each_task_draws_seeds_of_its_own():
    # With the same draws for both, a task and its mirror image would always cancel.
    low, high = interval(mean, [np.arange(10.0), -np.arange(10.0)])
    assert low < -0.5 and high > 0.5


def test_the_same_scores_give_the_same_interval_and_another_seed_another():
    assert interval(iqm, TASKS) == interval(iqm, TASKS)
    scores = [np.random.default_rng(0).normal(size=20)]
    assert interval(mean, scores, seed=0) != interval(mean, scores, seed=1)


def test_an_interval_moves_and_stretches_with_its_scores(rng: np.random.Generator):
    scores = rng.normal(size=9)
    expected = 3 * np.asarray(interval(iqm, [scores])) + 7
    np.testing.assert_allclose(interval(iqm, [3 * scores + 7]), expected, rtol=1e-12)


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_a_task_with_one_seed_has_no_interval(statistic: Callable[..., Any]):
    pair, one = [1.0, 2.0], [1.0]
    for strata in ([one], [pair, one], {"only": one}):
        assert np.isnan(interval(statistic, strata)).all()
    for x, y in itertools.permutations([[pair], [one]]):
        assert np.isnan(difference_interval(statistic, x, y)).all()
        assert np.isnan(improvement_interval(x, y)).all()


@pytest.mark.parametrize("seeds", [5, 10, 40])
def test_intervals_hold_the_true_mean_as_often_as_is_known_of_the_percentile_bootstrap(seeds: int):
    # For normal scores it is close to mean ± z √(n-1)/n s, a t-interval with too small a factor: coverage is 84% with 5
    # seeds and 90% with 10.
    expected = 1 - 2 * stats.t.sf(stats.norm.ppf(0.975) * np.sqrt((seeds - 1) / seeds), seeds - 1)
    repetitions, rng = 400, np.random.default_rng(1)
    covered = 0
    for _ in range(repetitions):
        low, high = interval(mean, [rng.normal(3, 2, size=seeds)], draws=500)
        covered += low <= 3 <= high
    # By chance, one test in ten thousand would fail; two percentage points allow for "close to".
    low, high = stats.binom.interval(0.9999, repetitions, expected)
    assert low - 0.02 * repetitions <= covered <= high + 0.02 * repetitions
    assert low > 0.75 * repetitions  # the bounds are not vacuous


def test_intervals_of_differences_hold_the_true_difference():
    repetitions, rng = 300, np.random.default_rng(2)
    covered = excluded = 0
    for _ in range(repetitions):
        x, y = rng.normal(5, 1, size=(2, 30)), rng.normal(4, 2, size=(2, 20))
        low, high = difference_interval(mean, list(x), list(y), draws=400)
        covered += low <= 1 <= high
        excluded += low > 0
    assert stats.binom.ppf(1e-4, repetitions, 0.90) <= covered <= stats.binom.ppf(1 - 1e-4, repetitions, 0.97)
    # The standard error is 0.34, so that the interval excludes 0 in about five cases of six.
    assert excluded > 0.7 * repetitions


def test_a_difference_resamples_both_sides_apart(rng: np.random.Generator):
    scores = rng.normal(size=15)
    low, high = difference_interval(mean, [scores], [scores], draws=8_000)
    assert low < -0.1 and high > 0.1
    # The sides are independent, so variances add and the width is √2 times that of one side.
    one_low, one_high = interval(mean, [scores], draws=8_000)
    assert (high - low) / (one_high - one_low) == pytest.approx(np.sqrt(2), rel=0.08)


# --- Curves


def test_the_interval_of_a_curve_is_at_each_point_near_that_of_its_scores(rng: np.random.Generator):
    curves = rng.normal(size=(12, 4)).cumsum(axis=1)
    got = curve_interval(curves, draws=8_000)
    np.testing.assert_allclose(got.mean, curves.mean(axis=0), rtol=1e-12)
    for point in range(4):
        expected = interval(mean, [curves[:, point]], draws=8_000)
        np.testing.assert_allclose((got.low[point], got.high[point]), expected, atol=0.06 * np.ptp(expected))


def test_whole_seeds_are_resampled_for_all_points_at_once():
    seeds = np.random.default_rng(0).normal(size=(10, 1))
    got = curve_interval(seeds + np.arange(50.0))
    # Curves that differ by constants keep these in every resample, so the band has constant width.
    np.testing.assert_allclose(got.high - got.low, got.high[0] - got.low[0], rtol=1e-9)
    np.testing.assert_allclose(got.low - np.arange(50.0), got.low[0], rtol=1e-9)


def test_curves_of_several_tasks_are_averaged_and_resampled_apart(rng: np.random.Generator):
    one, two = rng.normal(size=(6, 3)), rng.normal(size=(9, 3))
    got, far = curve_interval({"one": one, "two": two}), curve_interval({"one": one, "two": two + 100})
    np.testing.assert_allclose(got.mean, (one.mean(axis=0) + two.mean(axis=0)) / 2, rtol=1e-12)
    for near, moved in zip(got, far, strict=True):
        np.testing.assert_allclose(moved, near + 50, rtol=1e-9)
    for alone, again in zip(curve_interval(one), curve_interval([one]), strict=True):
        np.testing.assert_array_equal(alone, again)


def test_the_curve_of_one_seed_has_no_interval():
    got = curve_interval([[1.0, 2.0, 4.0]])
    np.testing.assert_array_equal(got.mean, [1, 2, 4])
    assert got.low.shape == got.high.shape == (3,) and np.isnan(got.low).all() and np.isnan(got.high).all()


# --- Probability of improvement


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([[2]], [[1]], 1.0),
        ([[1]], [[1]], 0.5),
        ([[1, 2, 3]], [[2, 2]], 0.5),
        ([[1, 2, 3]], [[0, 2]], (4 + 0.5) / 6),
        ([[5, 6], [1, 1]], [[1, 2], [1, 2]], (1 + 0.25) / 2),
    ],
)
def test_the_probability_of_improvement_by_hand(x: Any, y: Any, expected: float):
    assert probability_of_improvement(x, y) == pytest.approx(expected, rel=1e-12)
    assert probability_of_improvement(y, x) == pytest.approx(1 - expected, rel=1e-12)


def test_the_probability_of_improvement_equals_a_loop_over_pairs(rng: np.random.Generator):
    x, y = {"a": rng.integers(5, size=7), "b": rng.integers(5, size=4)}, {"b": rng.integers(5, size=6), "a": [2, 3]}
    chances = []
    for task in x:
        pairs = list(itertools.product(x[task], y[task]))
        chances.append(sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs))
        assert chances[-1] == pytest.approx(stats.mannwhitneyu(x[task], y[task]).statistic / len(pairs), rel=1e-12)
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(chances), rel=1e-12)


def test_the_interval_of_the_probability_of_improvement_is_that_of_a_slow_bootstrap():
    rng = np.random.default_rng(3)
    x, y = [rng.normal(1, 1, size=9), rng.integers(4, size=6)], [rng.normal(0, 1, size=7), rng.integers(4, size=8)]
    drawn = []
    for _ in range(2_000):
        again = [[rng.choice(task, len(task)) for task in side] for side in (x, y)]
        drawn.append(probability_of_improvement(*again))
    expected = np.quantile(drawn, (0.025, 0.975))
    got = improvement_interval(x, y)
    np.testing.assert_allclose(got, expected, atol=0.08 * np.ptp(expected))
    assert 0 <= got[0] < probability_of_improvement(x, y) < got[1] <= 1


# --- Curves of one run


def test_the_area_under_a_curve_by_hand():
    assert area_under_curve([10, 20, 40], [0, 1, 1]) == (10 * 0.5 + 20 * 1) / 30
    assert area_under_curve([7], [0.25]) == 0.25
    np.testing.assert_array_equal(area_under_curve([0, 1, 2], [[0, 1, 2], [4, 4, 4]]), [1, 4])


def test_the_area_does_not_depend_on_where_a_straight_line_is_looked_at(rng: np.random.Generator):
    at = np.sort(rng.uniform(100, 900, size=20))
    at[0], at[-1] = 100, 900
    assert area_under_curve(at, 2 * at + 1) == pytest.approx(2 * 500 + 1, rel=1e-12)


def test_the_area_equals_the_mean_of_the_finely_interpolated_curve(rng: np.random.Generator):
    at, values = np.cumsum(rng.uniform(1, 9, size=15)), rng.normal(size=15)
    fine = np.linspace(at[0], at[-1], 400_001)
    middle = (fine[1:] + fine[:-1]) / 2
    assert area_under_curve(at, values) == pytest.approx(np.interp(middle, at, values).mean(), abs=1e-6)


def test_the_summary_of_a_run():
    returns = [(10, 0.0), (20, 1.0), (40, 0.5)]
    rows = [{"episode": episode, "eval_return": value, "loss": np.nan} for episode, value in returns]
    area = (10 * 0.5 + 20 * 0.75) / 30
    assert summary_of(rows) == pytest.approx({"last": 0.5, "mean": 0.5, "maximum": 1.0, "auc": area}, rel=1e-12)
    assert summary_of(rows[:1]) == {"last": 0.0, "mean": 0.0, "maximum": 0.0, "auc": 0.0}


# --- Refusals

REFUSED: dict[str, Callable[[], Any]] = {
    "no tasks": lambda: mean([]),
    "no seeds": lambda: iqm({"a": [1, 2], "b": []}),
    "a bare array": lambda: mean(np.asarray([1.0, 2.0])),
    "nan": lambda: mean({"a": [1.0, np.nan]}),
    "inf": lambda: iqm([[1.0, np.inf]]),
    "nan in an interval": lambda: interval(mean, [[1.0, np.nan]]),
    "curves in an interval": lambda: interval(mean, [np.zeros((3, 4))]),
    "nan in a difference": lambda: difference_interval(mean, [[1.0, 2.0]], [[np.nan, 1.0]]),
    "nan in a curve": lambda: curve_interval([[1.0, np.nan], [1.0, 1.0]]),
    "no curves": lambda: curve_interval([]),
    "curves of unequal length": lambda: curve_interval({"a": np.zeros((2, 3)), "b": np.zeros((2, 4))}),
    "a curve without seeds": lambda: curve_interval(np.zeros(4)),
    "nan in an improvement": lambda: probability_of_improvement([[1.0]], [[np.nan]]),
    "other tasks": lambda: probability_of_improvement({"a": [1.0]}, {"b": [1.0]}),
    "more tasks": lambda: improvement_interval([[1.0, 2.0]], [[1.0, 2.0]] * 2),
    "level": lambda: interval(mean, TASKS, level=1.0),
    "draws": lambda: interval(mean, TASKS, draws=0),
    "a statistic of everything": lambda: interval(lambda tasks: np.mean(np.concatenate(tasks, axis=1)), TASKS),
    "no points": lambda: area_under_curve([], []),
    "fewer returns": lambda: area_under_curve([1, 2], [1]),
    "nan in a return": lambda: area_under_curve([1, 2], [1, np.nan]),
    "nan in an episode": lambda: area_under_curve([1, np.nan], [1, 2]),
    "episodes that fall": lambda: area_under_curve([1, 3, 2], [1, 1, 1]),
    "an episode twice": lambda: area_under_curve([1, 1], [1, 2]),
    "no rows": lambda: summary_of([]),
    "nan in a row": lambda: summary_of([{"episode": 1, "eval_return": np.nan}]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_answer_is_refused_in_one_line(name: str):
    with pytest.raises(ValueError) as error:
        REFUSED[name]()
    assert str(error.value) and "\n" not in str(error.value)


def test_of_evaluations_between_which_no_episode_ended_the_last_one_is_in_the_area():
    rows = [
        {"episode": episode, "eval_return": value} for episode, value in ((10, 0.0), (20, 9.0), (20, 1.0), (30, 2.0))
    ]
    found = summary_of(rows)
    assert found["auc"] == pytest.approx((0.5 + 1.5) / 2) and found["mean"] == 3.0 and found["maximum"] == 9.0
    with pytest.raises(ValueError, match="must increase"):
        summary_of([*rows, {"episode": 10, "eval_return": 0.0}])


def test_a_score_that_is_no_number_is_named_by_its_task():
    with pytest.raises(ValueError, match=r"'second'.*1 of 2"):
        mean({"first": [1.0], "second": [1.0, np.nan]})
