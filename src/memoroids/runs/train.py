"""Training: creates or resumes a run directory, and runs the host loop or the device loop in it."""

import dataclasses
import shlex
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from memoroids._util.files import atomic_write_text
from memoroids._util.provenance import conditions
from memoroids.acting.evaluation import Evaluations
from memoroids.envs import EnvironmentFault
from memoroids.runs import checkpoint
from memoroids.runs.build import (
    DeviceParts,
    HostParts,
    build_device,
    build_host,
    check_own_memory,
    with_target,
)
from memoroids.runs.checkpoint import CheckpointError
from memoroids.runs.device_loop import DeviceRun
from memoroids.runs.host_loop import HostRun
from memoroids.runs.placement import Placement
from memoroids.runs.plots import draw_comparison
from memoroids.runs.progress import Counters, Outcome, Progress, TrainingError
from memoroids.runs.recorder import Recorder
from memoroids.runs.run_directory import CHECKPOINTS, CONFIG, CURVE, METRICS, SUMMARY, locked, seed_dir
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import to_json
from memoroids.runs.trackers import Trackers

PartsT = TypeVar("PartsT", HostParts, DeviceParts)


def train(
    config: TrainConfig, run_dir: Path, *, resume: bool = False, watch: Callable[[Progress], None] = lambda _: None
) -> Outcome:
    """Trains with the settings `config` and writes `run_dir`: settings, metrics, curve, summary and checkpoints.

    With several seeds `run_dir` contains a run directory for each of them, and the outcome covers all. With `resume`
    training continues from the newest checkpoint. The first Ctrl-C or SIGTERM ends the run with a checkpoint, after the
    current update or compiled call; so do environments that misbehave too often. `watch` is called with the progress
    after every few episodes; what it raises ends the run with a checkpoint too.

    Raises `ValueError`, `EnvironmentFault`, `CheckpointError` or `TrainingError`, each with a message of one line.
    """
    _check_free(run_dir, resume)
    watch = _guarded(watch)
    if not config.env.on_device:
        with locked(run_dir):
            _check_free(run_dir, resume)  # another process may have begun a run before the lock was taken
            restored = RestoredRun(config, build_host(config), run_dir, resume=resume)
            return _train_host(restored, restored.recorder(run_dir, watch))
    placement = Placement(config)
    with _output_directory(run_dir, placement) as directory, locked(directory):
        _check_free(directory, resume)
        if config.placement.seeds == 1:
            restored = RestoredRun(config, build_device(config), run_dir, resume=resume)
            recorder = restored.recorder(directory, watch)
            return _train_device(config, placement, [restored], [recorder], recorder.report)[0]
        with ExitStack() as locks:  # the directory of a seed is a run directory like any other
            for i in range(config.placement.seeds):
                locks.enter_context(locked(seed_dir(directory, config.seed + i)))
            return _train_seeds(config, placement, run_dir, directory, resume=resume, watch=watch)


class _WatchFailed(Exception):
    """Raised if the caller's `watch` raises, with that error as its cause."""


def _guarded(watch: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """`watch`, whose errors raise `_WatchFailed` instead."""

    def guarded(progress: Progress) -> None:
        try:
            watch(progress)
        except Exception as error:
            raise _WatchFailed from error

    return guarded


@contextmanager
def _saved_at_the_end(save: Callable[[], None]) -> Iterator[None]:
    """Calls `save` if an environment, the training or the caller's `watch` ends the run, and raises that error."""
    try:
        yield
    except (EnvironmentFault, TrainingError):
        save()
        raise
    except _WatchFailed as failed:
        save()
        assert failed.__cause__ is not None
        raise failed.__cause__ from None


def _check_free(run_dir: Path, resume: bool) -> None:
    """Raises `ValueError` if a new run would overwrite another one."""
    if not resume and (run_dir / CONFIG).exists():
        resume_command = f"`memoroids resume {shlex.quote(str(run_dir))}`"
        raise ValueError(f"{run_dir} holds another run: choose another --run-dir, or {resume_command}")


@contextmanager
def _output_directory(run_dir: Path, placement: Placement) -> Iterator[Path]:
    """The directory to which this process writes: `run_dir` in the first process, a temporary one in all others."""
    if placement.first:
        yield run_dir
        return
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


class RestoredRun(Generic[PartsT]):
    """The parts of a run with their initial state, or with `resume` the state in the newest checkpoint.

    Nothing is written before `recorder` is called. Raises `CheckpointError` if there is nothing to resume, and
    `ValueError` if a memory of the user's own breaks a law.
    """

    def __init__(self, config: TrainConfig, parts: PartsT, run_dir: Path, *, resume: bool):
        if not resume:
            check_own_memory(config, parts)
        self.config, self.resume = with_target(config, parts), resume
        self.parts = parts
        self.counters = Counters()
        self.learner: Any = self.parts.agent.init(self.parts.network)
        self.checkpoint: Path | None = None
        """The checkpoint that was restored; None for a new run, or one that was killed before its first checkpoint."""
        self.refused: list[CheckpointError] = []
        """Errors of newer checkpoints that were passed over."""
        if resume:
            self.checkpoint = checkpoint.newest_good(run_dir / CHECKPOINTS, self.refused.append, asdict(self.config))
            if self.checkpoint is None and not (run_dir / CONFIG).exists():
                raise CheckpointError(f"no run to resume in {run_dir}: it has neither {CONFIG} nor a checkpoint")
            if self.checkpoint is None and (run_dir / SUMMARY).exists():
                raise CheckpointError(
                    f"{run_dir} holds a finished run whose checkpoints are gone: it cannot be resumed"
                )
        self.machine: dict[str, str] = {}
        """Versions and hardware with which the checkpoint was written, see `conditions`."""
        self.best: Any = None
        if self.checkpoint is not None:
            found = checkpoint.manifest(self.checkpoint)
            try:
                self.counters = Counters(**found["counters"])
                self.machine = dict(found["machine"])
            except TypeError as error:
                raise CheckpointError(
                    f"unreadable checkpoint {self.checkpoint}: invalid counters or machine: {error}"
                ) from error
            self.learner = checkpoint.restore(self.checkpoint, "learner", self.learner)
            if self.counters.best is not None:
                self.best = checkpoint.restore(self.checkpoint, "best", self.learner.params)

    def recorder(self, run_dir: Path, watch: Callable[[Progress], None]) -> Recorder:
        """Opens the output files in `run_dir`; writes the settings of a new run, logs warnings about a resumed one."""
        config = self.config
        loggers = Trackers(
            run_dir, asdict(config), tensorboard=config.trackers.tensorboard, wandb=config.trackers.wandb
        )
        lost = self.resume and self.checkpoint is None and _lines(run_dir / METRICS) > 1
        if not self.resume:
            run_dir.mkdir(parents=True, exist_ok=True)
            atomic_write_text(run_dir / CONFIG, to_json(config) + "\n")
        recorder = Recorder(config, run_dir, self.counters, loggers, watch, learner=self.learner, best=self.best)
        if not self.resume:
            for notice in self.parts.notices:
                recorder.warn(notice)
        if lost:
            recorder.warn(f"{run_dir} has no checkpoint: the run starts again and overwrites its {METRICS}")
        for error in self.refused:
            recorder.warn(f"{error}; resuming from an earlier checkpoint")
        if self.checkpoint is not None:
            for name, value in conditions().items():
                if (before := self.machine.get(name)) != value:
                    recorder.warn(
                        f"the resumed run may not match an uninterrupted one bit for bit: {name} was {before}, "
                        f"now {value}"
                    )
        return recorder


def _lines(path: Path) -> int:
    """Lines in a file, 0 if there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _train_host(restored: RestoredRun[HostParts], recorder: Recorder) -> Outcome:
    run = HostRun(restored.config, restored.parts, recorder, restored.learner)
    try:
        if restored.checkpoint is not None:
            run.restore(restored.checkpoint)
        with _interruptible() as interrupted, _saved_at_the_end(run.save):
            return run.run(interrupted)
    finally:
        run.close()


def _train_device(
    config: TrainConfig,
    placement: Placement,
    restored: list[RestoredRun[DeviceParts]],
    recorders: list[Recorder],
    report: Callable[[], None],
) -> list[Outcome]:
    run = DeviceRun(
        config, placement, [each.parts for each in restored], recorders, [each.learner for each in restored]
    )
    try:
        run.restore([each.checkpoint for each in restored])
        with _interruptible() as interrupted, _saved_at_the_end(run.save_open):
            for _ in run.run(interrupted):
                report()
        return run.outcomes()
    finally:
        run.close()


def _train_seeds(
    config: TrainConfig,
    placement: Placement,
    run_dir: Path,
    directory: Path,
    *,
    resume: bool,
    watch: Callable[[Progress], None],
) -> Outcome:
    """Trains several seeds: a run directory for each, the same as from a run of that seed alone, and a joint plot."""
    configs = [config.replace(seed=config.seed + i, seeds=1, devices=1) for i in range(config.placement.seeds)]
    directories = [seed_dir(run_dir, each.seed) for each in configs]
    restored = [
        # A killed run may not have written the directories of all seeds yet.
        RestoredRun(each, build_device(each), path, resume=resume and (path / CONFIG).exists())
        for each, path in zip(configs, directories, strict=True)
    ]
    config = config.replace(target_return=restored[0].config.evaluation.target_return)
    if not resume:
        directory.mkdir(parents=True, exist_ok=True)
        atomic_write_text(directory / CONFIG, to_json(config) + "\n")
    reports: list[Progress] = []
    recorders = [each.recorder(seed_dir(directory, each.config.seed), reports.append) for each in restored]

    def report() -> None:
        reports.clear()
        for recorder in recorders:
            recorder.report()
        slowest = min(reports, key=lambda progress: (progress.counters.episode, progress.counters.random))
        row = _mean_rows([recorder.rows for recorder in recorders])[-1:]
        watch(dataclasses.replace(slowest, config=config, row=row[0] if row else None))

    outcomes = _train_device(config, placement, restored, recorders, report)
    rows = [outcome.rows for outcome in outcomes]
    if all(rows):
        curves = {f"seed {each.seed}": own_rows for each, own_rows in zip(configs, rows, strict=True)}
        what = f"{config.env.id}, {config.network.memory}, {config.placement.seeds} seeds"
        draw_comparison(
            directory / CURVE,
            curves,
            f"{what}: {config.evaluation.way} evaluation during training",
            f"return of {config.evaluation.way} episodes",
        )
    finals = [outcome.finals for outcome in outcomes if outcome.finals is not None]
    combined = Evaluations.joined(finals) if len(finals) == len(outcomes) else None
    return Outcome(combined, _mean_rows(rows), run_dir, config, tuple(outcomes))


def _mean_rows(rows: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    """The means over runs, row by row, up to the last row that all runs have."""
    return [{name: float(np.mean([row[name] for row in at])) for name in at[0]} for at in zip(*rows, strict=False)]


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether Ctrl-C or SIGTERM has been received; a second one acts as usual."""
    raised: list[int] = []  # an Event could deadlock if a signal arrives while the other's handler holds its lock
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: Any, frame: Any) -> None:
        raised.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, handle)
    try:
        yield lambda: bool(raised)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
