"""POPGym's tasks, the best scores published for them, and their measure."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from memoroids.runs.preset_values import PUBLISHED_BATCH

LEVELS = ("Easy", "Medium", "Hard")
FAMILIES = (
    "RepeatFirst",
    "RepeatPrevious",
    "CountRecall",
    "Autoencode",
    "HigherLower",
    "Concentration",
    "Battleship",
    "MultiarmedBandit",
    "MineSweeper",
    "PositionOnlyCartPole",
    "NoisyPositionOnlyCartPole",
    "VelocityOnlyCartpole",
    "PositionOnlyPendulum",
    "NoisyPositionOnlyPendulum",
    "LabyrinthEscape",
    "LabyrinthExplore",
)
"""POPGym's tasks, each at every one of `LEVELS`."""


class Published(NamedTuple):
    """The best published score of a task at each of `LEVELS`, and whose each is, a key of `SOURCES`."""

    scores: tuple[float, float, float]
    sources: str


SOURCES = {
    "P": "the best of 13 memories, Morad et al. 2023, POPGym",
    "S": "Stable Hadamard Memory, Le et al. 2025, read from others' tables",
}
PUBLISHED: dict[str, Published] = {
    "RepeatFirst": Published((1.0, 1.0, 0.969), "PPP"),
    "RepeatPrevious": Published((1.0, 0.789, 0.191), "PPP"),
    "CountRecall": Published((0.509, -0.519, -0.470), "PPP"),
    "Autoencode": Published((0.495, -0.288, -0.439), "SSS"),
    "HigherLower": Published((0.529, 0.513, 0.509), "PPP"),
    "Concentration": Published((0.107, -0.210, -0.829), "PPP"),
    "Battleship": Published((-0.123, -0.168, -0.212), "SSS"),
    "MultiarmedBandit": Published((0.631, 0.598, 0.574), "PPP"),
    "PositionOnlyCartPole": Published((1.0, 1.0, 1.0), "PPP"),
    "NoisyPositionOnlyCartPole": Published((0.995, 0.659, 0.404), "PPP"),
}
"""The scores of PPO after 15 million steps, three runs each, measured as `mmer`."""

CLOSE = 0.0005
"""How far below a published score still counts as reaching it: those have three digits."""
WINDOW = PUBLISHED_BATCH
"""Environment steps of a part of a run, of which the measure is the maximum."""
SLACK = 0.1
"""By how much a part may be shorter, since rows are written between two rollouts."""


def split_level(task: str) -> tuple[str, str]:
    """A task's family and level, "" if its name has none."""
    level = next((level for level in LEVELS if task.endswith(level)), "")
    return task.removesuffix(level), level


def published_score(task: str) -> tuple[float, str] | None:
    """The best published score of a task with its level, and its source; None if there is none."""
    family, level = split_level(task)
    if not level or family not in PUBLISHED:
        return None
    found, at = PUBLISHED[family], LEVELS.index(level)
    return found.scores[at], found.sources[at]


def mmer(rows: Sequence[dict[str, float]]) -> float:
    """The maximum over training of the mean training return, of parts of a run of `WINDOW` steps or more.

    Parts end at rows of the metrics. NaN if no episode was finished. It is measured while the agent explores and
    learns, and the maximum is selected on what it is taken from: it is no estimate of the return of the trained agent.
    Source: Morad et al. 2023, POPGym, Section 5.
    """
    means = []
    total = episodes = begun = before = 0.0
    for row in rows:
        new = row["episode"] - before
        before = row["episode"]
        if new and math.isfinite(row["train_return"]):
            total, episodes = total + new * row["train_return"], episodes + new
        if episodes and row["env_steps"] - begun >= (1 - SLACK) * WINDOW:
            means.append(total / episodes)
            total, episodes, begun = 0.0, 0.0, row["env_steps"]
    if episodes and not means:
        means.append(total / episodes)
    return max(means, default=math.nan)
