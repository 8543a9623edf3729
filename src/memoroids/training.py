"""Training from Python, as the command line trains: with presets, a new run directory and a display of progress."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memoroids.cli.progress_display import displayed
from memoroids.cli.run_names import new_run_dir
from memoroids.envs import resolve
from memoroids.runs import checkpoint
from memoroids.runs import train as training
from memoroids.runs.checkpoint import CheckpointError
from memoroids.runs.presets import PRESETS
from memoroids.runs.progress import Progress
from memoroids.runs.run import Run
from memoroids.runs.run_directory import CHECKPOINTS, load_config
from memoroids.runs.settings import TrainConfig

Row = dict[str, float]
"""A row of metrics.csv: name of a column → value."""


class _Enough(Exception):
    """Raised within a run to end it."""


class _Callbacks:
    """Calls the user's functions when there is a new row or a new checkpoint."""

    def __init__(
        self,
        run_dir: Path,
        on_row: Callable[[Row], None] | None,
        on_checkpoint: Callable[[Path], None] | None,
        stop: Callable[[Row], bool] | None,
    ):
        self._checkpoints = run_dir / CHECKPOINTS
        self._on_row, self._on_checkpoint, self._stop = on_row, on_checkpoint, stop
        self._row: Row | None = None
        self._saved: Path | None = None

    def watch(self, progress: Progress) -> None:
        """Raises `_Enough` if the user's `stop` returns True for a new row."""
        self.look_for_checkpoint()
        row = progress.row
        if row is None or row == self._row:
            return
        self._row = row
        if self._on_row is not None:
            self._on_row(dict(row))
        if self._stop is not None and self._stop(dict(row)):
            raise _Enough

    def look_for_checkpoint(self) -> None:
        if self._on_checkpoint is None:
            return
        with contextlib.suppress(CheckpointError):  # there is none yet
            newest = checkpoint.latest(self._checkpoints)
            if newest != self._saved:
                self._saved = newest
                self._on_checkpoint(newest)


def train(
    *,
    preset: str = PRESETS[0],
    run_dir: str | Path | None = None,
    progress: bool = True,
    on_row: Callable[[Row], None] | None = None,
    on_checkpoint: Callable[[Path], None] | None = None,
    stop: Callable[[Row], bool] | None = None,
    **settings: Any,
) -> Run:
    """Trains an agent as `memoroids train` does, and returns its run.

        run = memoroids.train(env="CartPole-v1", memory="ffm", algorithm="ppo", steps=100_000)
        run = memoroids.train(env=MyEnv, stop=lambda row: row["eval_return"] > 0.95)

    `settings`: named as the options of the command line with underscores, see `TrainConfig.of`; `env` may be an id, an
    environment or a function that makes one, and `memory` a name or a function that makes one. `preset`: whose settings
    apply where none are given. `run_dir`: a new directory; by default one under runs/. `progress`: whether to show
    where the run is, on a terminal as a bar, elsewhere as a line now and then.

    `on_row`: called with each new row of metrics. `on_checkpoint`: called with the directory of each new checkpoint.
    `stop`: called with each new row; if it returns True, the run ends with a checkpoint, and can be resumed. So it does
    after Ctrl-C, or if a callback raises.

    Raises `ValueError`, `EnvironmentFault`, `CheckpointError` or `TrainingError`, each with a message of one line, and
    what a callback raises.
    """
    config = TrainConfig.of(preset=preset, **settings)
    config = config.replace(env=resolve(config.env.id))
    path = Path(run_dir) if run_dir is not None else config.run_dir or new_run_dir(config)
    config = config.replace(run_dir=path)
    callbacks = _Callbacks(path, on_row, on_checkpoint, stop)
    silent = contextlib.nullcontext((lambda moment: None, lambda outcome: None))
    with displayed(config, path, resume=False, hints=False) if progress else silent as (show, conclude):

        def watch(moment: Progress) -> None:
            show(moment)
            callbacks.watch(moment)

        try:
            outcome = training.train(config, path, watch=watch)
        except _Enough:
            outcome = None
    callbacks.look_for_checkpoint()
    if outcome is not None:
        conclude(outcome)
    return Run(path, load_config(path), trust=True)
