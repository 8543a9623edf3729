"""POPGym's tasks, published scores and their measure."""

import math

import pytest

from memoroids.envs.device import DEVICE
from memoroids.experiments.popgym import (
    FAMILIES,
    LEVELS,
    PUBLISHED,
    SOURCES,
    mmer,
    published_score,
    split_level,
)


def test_every_task_is_there():
    assert {family + level for family in FAMILIES for level in LEVELS} == set(DEVICE)


def test_scores_have_tasks_and_sources():
    assert set(PUBLISHED) <= set(FAMILIES)
    for published in PUBLISHED.values():
        assert len(published.scores) == len(published.sources) == 3 and set(published.sources) <= set(SOURCES)
        assert all(-2 < score <= 1 for score in published.scores)


@pytest.mark.parametrize(
    ("task", "found"),
    [
        ("RepeatPreviousHard", (0.191, "P")),
        ("AutoencodeEasy", (0.495, "S")),
        ("MineSweeperEasy", None),
        ("RepeatPreviousEasy-k10-num_decks2", None),
        ("Pong", None),
    ],
)
def test_the_score_of_a_task(task, found):
    assert published_score(task) == found


def test_the_level_is_the_end_of_a_name():
    assert split_level("CountRecallMedium") == ("CountRecall", "Medium")
    assert split_level("CountRecall") == ("CountRecall", "")


def row(episode: int, steps: int, value: float) -> dict[str, float]:
    return {"episode": episode, "env_steps": steps, "train_return": value}


def test_the_measure_is_the_highest_mean_of_a_part_of_the_training():
    rows = [row(0, 70_000, math.nan), row(10, 140_000, -0.5), row(20, 300_000, 0.25), row(30, 400_000, 0.125)]
    assert mmer(rows) == 0.25
    assert mmer(rows[:2]) == -0.5
    assert math.isnan(mmer(rows[:1])) and math.isnan(mmer([]))


def test_rows_of_fewer_steps_are_taken_together():
    # Two rows are a part. The second has three times the episodes of the first.
    rows = [row(4 * (i // 2) + (1 if i % 2 == 0 else 4), 33_000 * (i + 1), float(i == 6)) for i in range(40)]
    assert mmer(rows) == 0.25
    # What is left over at the end is too short to count, unless there is nothing else.
    assert mmer([*rows, row(81, 40 * 33_000 + 10, 9.0)]) == 0.25
    assert mmer(rows[6:7]) == 1.0
