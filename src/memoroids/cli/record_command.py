"""`memoroids record`: an episode of a run's agent, to be watched."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from memoroids.cli.parse import RunDirectory, Trust, load_trusted_config, parse
from memoroids.runs.seeds import check_episodes


@dataclass(frozen=True)
class RecordOptions:
    """Options of `memoroids record`. Raises `ValueError` for numbers out of range."""

    run: RunDirectory
    which: Literal["best", "worst", "median"] = "best"
    """Which of the episodes to record, by its return."""
    episodes: int = 10
    """Greedy episodes to play and choose from."""
    seed: int = 0
    """Chooses another set of fresh environment seeds."""
    output: Path | None = None
    """File to write, .gif, .mp4 or .txt; by default in the run's directory, a GIF if the environment has pictures."""
    best: bool = False
    """Use the parameters of the best evaluation during training instead of the newest."""
    trust: Trust = False

    def __post_init__(self) -> None:
        check_episodes(self.episodes, self.seed)


def record(arguments: list[str]) -> None:
    """Records an episode and prints what the episodes returned."""
    options: RecordOptions = parse(RecordOptions, "record", arguments)
    load_trusted_config(options.run, trust=options.trust)
    from memoroids.viewing.recording import record as write

    done = write(
        options.run,
        options.output,
        which=options.which,
        episodes=options.episodes,
        seed=options.seed,
        best=options.best,
    )
    low, high = done.returns.min(), done.returns.max()
    print(f"{options.episodes} episodes: returns from {low:.4g} to {high:.4g}, mean {done.returns.mean():.4g}")
    print(f"written {done.path}: the {options.which}, return {done.total:.4g}, environment seed {done.seed}")
