"""Runs that Ctrl-C ends early."""

import signal
from pathlib import Path

from memoroids.runs.progress import Outcome, Progress
from memoroids.runs.settings import TrainConfig
from memoroids.runs.train import train


def interrupted(settings: TrainConfig, run_dir: Path, *, after: int = 2) -> Outcome:
    """Trains until Ctrl-C, which comes at the first report after so many training episodes."""
    stopped: list[Progress] = []

    def stop_once(progress: Progress) -> None:
        if progress.counters.episode >= after and not stopped:
            stopped.append(progress)
            signal.raise_signal(signal.SIGINT)

    return train(settings, run_dir, watch=stop_once)
