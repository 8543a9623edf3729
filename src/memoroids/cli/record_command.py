"""`memoroids record`: an episode of a run's agent, to be watched."""

from dataclasses import dataclass
from pathlib import Path

from memoroids.cli.episode_options import EpisodeOptions
from memoroids.cli.parse import RunDirectory, load_trusted_config, parse


@dataclass(frozen=True, kw_only=True)
class RecordOptions(EpisodeOptions):
    """Options of `memoroids record`."""

    run: RunDirectory
    output: Path | None = None
    """File to write, .gif, .mp4 or .txt; by default in the run's directory, a GIF if the environment has pictures."""


def record(arguments: list[str]) -> None:
    """Records an episode and prints what the episodes returned."""
    options: RecordOptions = parse(RecordOptions, "record", arguments)
    from memoroids.cli.process import prepare_process

    prepare_process()
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
