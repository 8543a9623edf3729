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


def row(episode: int, steps: int, value: float) -> dict[str, float]:
    return {"episode": episode, "env_steps": steps, "train_return": value}


def test_the_measure_is_the_highest_mean_of_a_part_of_the_training():
    rows = [row(0, 50, math.nan), row(10, 100, -0.5), row(20, 500, 0.25), row(30, 1_000, 0.125)]
    assert mmer(rows) == 0.25
    assert mmer(rows[:2]) == -0.5
    assert math.isnan(mmer(rows[:1])) and math.isnan(mmer([]))


def test_parts_shorter_than_a_twentieth_are_taken_together():
    # Of forty rows of 25 steps two are a twentieth of the run. The second of a pair has three times the episodes.
    rows = [row(4 * (i // 2) + (1 if i % 2 == 0 else 4), 25 * (i + 1), float(i == 6)) for i in range(40)]
    assert mmer(rows) == 0.25
    # A part that is left over at the end is too short to count.
    assert mmer([*rows[:-1], row(81, 1_000, 0.0), row(82, 1_010, 9.0)]) == 0.25


def test_the_memory_of_a_task_is_that_of_its_family_unless_it_has_one(monkeypatch: pytest.MonkeyPatch):
    assert memory_for("Autoencode", "Hard") == MEMORY["Autoencode"] != memory_for("MineSweeper", "Hard") == "lru"
    monkeypatch.setitem(MEMORY, "AutoencodeHard", "gru")
    assert memory_for("Autoencode", "Hard") == "gru" != memory_for("Autoencode", "Easy")
    assert set(MEMORY.values()) <= set(REGISTRY)
    names = {split_level(name) for name in MEMORY}
    assert all(family in FAMILIES and level in ("", *LEVELS) for family, level in names)
