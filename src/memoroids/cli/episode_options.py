"""The options of commands that show one greedy episode of several."""

from dataclasses import dataclass
from typing import Literal

from memoroids.cli.parse import Trust
from memoroids.runs.seeds import check_episodes


@dataclass(frozen=True, kw_only=True)
class EpisodeOptions:
    """Which episode is shown. Raises `ValueError` for numbers out of range."""

    which: Literal["best", "worst", "median"] = "best"
    """Which of the episodes to show, by its return."""
    episodes: int = 10
    """Greedy episodes to play and choose from."""
    seed: int = 0
    """Chooses another set of fresh environment seeds."""
    best: bool = False
    """Use the parameters of the best evaluation during training instead of the newest."""
    trust: Trust = False

    def __post_init__(self) -> None:
        check_episodes(self.episodes, self.seed)
