"""`memoroids look`: what an agent's memory does in an episode, as a page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from memoroids.cli.episode_options import EpisodeOptions
from memoroids.cli.failures import UsageError
from memoroids.cli.parse import load_trusted_config, parse


@dataclass(frozen=True, kw_only=True)
class LookOptions(EpisodeOptions):
    """Options of `memoroids look`."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of the runs, which are shown side by side in the same environment seed, chosen by the first one."""
    output: Path | None = None
    """File to write; by default look.html in the first run's directory."""
    untrained: bool = False
    """Show beside each run what its network did before it was trained."""


def look(arguments: list[str]) -> None:
    """Writes the page and says where it is."""
    options: LookOptions = parse(LookOptions, "look", arguments)
    if not options.runs:
        raise UsageError("look: name at least one run; see memoroids look --help")
    from memoroids.cli.process import prepare_process

    prepare_process()
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
        untrained=options.untrained,
    )
    print(f"written {page}, {page.stat().st_size / 1e6:.2f} MB: open it in a browser")
