"""`memoroids watch`: a live page of runs under way."""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from memoroids.cli.parse import parse


@dataclass(frozen=True)
class WatchOptions:
    """Options of `memoroids watch`. Raises `ValueError` for a port that is none."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("runs"),)
    """Directories of runs, or folders that hold runs, of which the twelve newest are shown."""
    port: int = 8642
    """Where the page is served, to this machine alone; 0 takes any free port."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be from 0 to 65535, got {self.port}")


def watch(arguments: list[str]) -> None:
    """Serves the page until Ctrl-C or SIGTERM. It reads the runs, and never writes to them."""
    options: WatchOptions = parse(WatchOptions, "watch", arguments)
    from memoroids.viewing.live_runs import live, runs_in
    from memoroids.viewing.watch import server

    number = sum(len(runs_in(path)) for path in options.runs)
    with server(options.port, lambda: live(options.runs)) as serving:
        host, port = serving.server_address[:2]
        for ending in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs ignore SIGINT otherwise
            signal.signal(ending, signal.default_int_handler)
        print(f"watching {number} run{'s' * (number > 1)}: open http://{host}:{port}/ (Ctrl-C ends it)", flush=True)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            print("stopped watching")
