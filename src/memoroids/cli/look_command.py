"""`memoroids look`: what an agent's memory does in an episode, as a page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from memoroids.cli.failures import UsageError
from memoroids.cli.parse import Trust, load_trusted_config, parse
from memoroids.runs.seeds import check_episodes


@dataclass(frozen=True)
class LookOptions:
    """Options of `memoroids look`. Raises `ValueError` for numbers out of range."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of the runs, which are shown side by side."""
    which: Literal["best", "worst", "median"] = "best"
    """Which of the episodes to look at, by its return."""
    episodes: int = 10
    """Greedy episodes to play and choose from."""
    seed: int = 0
    """Chooses another set of fresh environment seeds."""
    output: Path | None = None
    """File to write; by default look.html in the first run's directory."""
    best: bool = False
    """Use the parameters of the best evaluation during training instead of the newest."""
    trust: Trust = False

    def __post_init__(self) -> None:
        check_episodes(self.episodes, self.seed)


def look(arguments: list[str]) -> None:
    """Writes the page and says where it is."""
    options: LookOptions = parse(LookOptions, "look", arguments)
    if not options.runs:
        raise UsageError("look: name at least one run; see memoroids look --help")
    for run in options.runs:
        load_trusted_config(run, trust=options.trust)
    from memoroids.viewing.look import look as write

    page = write(
        options.runs,
        options.output,
        which=options.which,
        episodes=options.episodes,
        seed=options.seed,
        best=options.best,
    )
    print(f"written {page}, {page.stat().st_size / 1e6:.2f} MB: open it in a browser")
