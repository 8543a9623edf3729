"""How a run ended, as data: above all whether its last policy is as good as its best."""

from pathlib import Path

import numpy as np
import pytest

from memoroids.acting.evaluation import Evaluation, Evaluations
from memoroids.runs.progress import Outcome
from memoroids.runs.settings import TrainConfig


def outcome(evaluated: list[float], final: list[float] | None, eval_episodes: int = 20) -> Outcome:
    rows = [{"episode": 10.0 * (i + 1), "eval_return": value} for i, value in enumerate(evaluated)]
    config = TrainConfig.of(eval_episodes=eval_episodes)
    found = None if final is None else Evaluation(np.asarray(final), np.ones(len(final), int))
    return Outcome(found and Evaluations(found), rows, Path("run"), config)


@pytest.mark.parametrize("final", [[9.0, 10.0, 11.0], [9.8] * 100], ids=str)
def test_a_policy_that_fell_from_500_to_10_is_much_worse_than_its_best(final: list[float]):
    best = outcome([20, 200, 500, 300, 10], final).fallen_from()
    assert best == {"episode": 30, "eval_return": 500}


@pytest.mark.parametrize(
    ("evaluated", "final"),
    [
        ([], [1.0]),
        ([1.0], [1.0]),
        ([1.0, 500.0], None),
        ([20, 200, 480, 500, 490], [480.0, 500.0]),
        ([20, 200, 500, 400], [400.0] * 9),
        ([-1.0, 0.5, 1.0, 0.9], [1.0, 0.6]),
    ],
    ids=str,
)
def test_a_policy_that_is_as_good_as_its_best_or_nearly_so_is_not(evaluated: list[float], final: list[float] | None):
    assert outcome(evaluated, final).fallen_from() is None


def test_the_best_of_many_evaluations_of_one_policy_is_no_better_policy():
    generator = np.random.default_rng(0)
    for _ in range(100):
        evaluated = generator.choice([-1.0, 1.0], (300, 20)).mean(axis=1).tolist()
        assert outcome(evaluated, generator.choice([-1.0, 1.0], 100).tolist()).fallen_from() is None
