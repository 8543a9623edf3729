"""`memoroids export`: an agent for programs without this package."""

from dataclasses import dataclass
from pathlib import Path

from memoroids.cli.parse import RunDirectory, Trust, load_trusted_config, parse


@dataclass(frozen=True)
class ExportOptions:
    """Options of `memoroids export`. Raises `ValueError` for a number out of range."""

    run: RunDirectory
    output: Path | None = None
    """Folder to write, which must not exist; by default RUN/exported."""
    best: bool = False
    """Export the parameters of the best evaluation during training instead of the newest."""
    episodes: int = 20
    """Episodes of drawn observations over which the exported agent is compared with the agent itself."""
    trust: Trust = False

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {self.episodes}")


def export(arguments: list[str]) -> None:
    """Exports a run's agent and prints how it compares with the agent itself."""
    options: ExportOptions = parse(ExportOptions, "export", arguments)
    from memoroids.cli.process import prepare_process

    prepare_process()
    load_trusted_config(options.run, trust=options.trust)
    from memoroids.deploy.export import README
    from memoroids.deploy.export import export as write

    folder = options.output or options.run / "exported"
    done = write(options.run, folder, best=options.best, episodes=options.episodes)
    print(f"written {done.folder}, {done.size / 1e6:.2f} MB")
    print(
        f"compared over {options.episodes} episodes, {done.steps} steps: the same actions, largest difference "
        f"{done.difference:.1e}"
    )
    print(", ".join(f"{name} {micro:.0f} us" for name, micro in done.microseconds.items()) + " a step")
    print(f"how to act with it: {done.folder / README}")
