"""POPGym's tasks, published scores and their measure."""

import math

import pytest

from memoroids.envs.device import DEVICE
from memoroids.experiments.popgym import (
    FAMILIES,
    LEVELS,
    MEMORY,
    PUBLISHED,
    SOURCES,
    memory_for,
    mmer,
    published_score,
    split_level,
)
from memoroids.memory.registry import REGISTRY


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
        ("RepeatPreviousEasy-k10", None),
        ("Pong", None),
    ],
)
def test_the_score_of_a_task(task, found):
    assert published_score(task) == found


def test_the_level_is_the_end_of_a_name():
    assert split_level("CountRecallMedium") == ("CountRecall", "Medium")
    assert split_level("CountRecall") == ("CountRecall", "")


def test_the_measure_is_the_highest_mean_of_training_episodes():
    rows = [{"train_return": value} for value in (math.nan, -0.5, 0.25, 0.125)]
    assert mmer(rows) == 0.25
    assert mmer(rows[:2]) == -0.5
    assert math.isnan(mmer(rows[:1]))


def test_the_memory_of_a_task_is_that_of_its_family_unless_it_has_one():
    assert memory_for("Autoencode", "Hard") == MEMORY["Autoencode"]
    assert memory_for("RepeatFirst", "Hard") == MEMORY["RepeatFirstHard"] != memory_for("RepeatFirst", "Easy") == "lru"
    assert set(MEMORY.values()) <= set(REGISTRY)
    names = {split_level(name) for name in MEMORY}
    assert all(family in FAMILIES and level in ("", *LEVELS) for family, level in names)
