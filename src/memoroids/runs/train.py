"""Training: creates or resumes a run directory, and runs the host loop or the device loop in it."""

import dataclasses
import gc
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax

from memoroids._util.files import atomic_write_text
from memoroids._util.provenance import conditions
from memoroids.runs import checkpoint
from memoroids.runs.build import DeviceParts, HostParts, as_built, build_device, build_host, check_own_memory
from memoroids.runs.checkpoint import CheckpointError
from memoroids.runs.device_loop import DeviceRun
from memoroids.runs.ending import guarded, interruptible, saved
from memoroids.runs.host_loop import HostRun
from memoroids.runs.metrics import mean_rows
from memoroids.runs.placement import Placement
from memoroids.runs.progress import Counters, Outcome, Progress
from memoroids.runs.recorder import Recorder
from memoroids.runs.run_directory import CHECKPOINTS, CONFIG, METRICS, SUMMARY, locked, seed_dir
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import to_json
from memoroids.runs.several_seeds import joined, seed_configs, seed_dirs
from memoroids.runs.shared_program import program_key
from memoroids.runs.trackers import Trackers

PartsT = TypeVar("PartsT", HostParts, DeviceParts)


def train(
    config: TrainConfig, run_dir: Path, *, resume: bool = False, watch: Callable[[Progress], None] = lambda _: None
) -> Outcome:
    """Trains with the settings `config` and writes `run_dir`: settings, metrics, curve, summary and checkpoints.

    With several seeds `run_dir` contains a run directory for each of them, and the outcome covers all; on the host one
    follows the other. With `resume` training continues from the newest checkpoint. The first Ctrl-C or SIGTERM ends the
    run with a checkpoint, after the current update or compiled call; so do environments that misbehave too often.
    `watch` is called with the progress after every few episodes; what it raises ends the run with a checkpoint too.

    Raises `ValueError`, `EnvironmentFault`, `CheckpointError` or `TrainingError`, each with a message of one line.
    """
    _check_free(run_dir, resume)
    watch = guarded(watch)
    if config.env.on_device:
        return _train_on_device(config, run_dir, resume=resume, watch=watch)
    with _locked(config, run_dir):
        _check_free(run_dir, resume)  # another process may have begun a run before the lock was taken
        if config.placement.seeds > 1:
            return _train_one_by_one(config, run_dir, resume=resume, watch=watch)
        restored = RestoredRun(config, build_host(config), run_dir, resume=resume)
        recorder = restored.recorder(run_dir, watch)
        with interruptible() as interrupted:
            return _train_host(restored, recorder, interrupted)


def _train_on_device(config: TrainConfig, run_dir: Path, *, resume: bool, watch: Callable[[Progress], None]) -> Outcome:
    placement = Placement(config)
    with _output_directory(run_dir, placement) as directory, _locked(config, directory):
        _check_free(directory, resume)
        if config.placement.seeds > 1:
            return _train_together(config, placement, run_dir, directory, resume=resume, watch=watch)
        restored = RestoredRun(config, build_device(config), run_dir, resume=resume)
        recorder = restored.recorder(directory, watch)
        return _train_device(config, placement, [restored], [recorder], recorder.report)[0]


def _check_free(run_dir: Path, resume: bool) -> None:
    """Raises `ValueError` if a new run would overwrite another one."""
    if not resume and (run_dir / CONFIG).exists():
        command = f"memoroids resume {shlex.quote(str(run_dir))}"
        raise ValueError(f"{run_dir} holds another run: choose another --run-dir, or `{command}`")


@contextmanager
def _output_directory(run_dir: Path, placement: Placement) -> Iterator[Path]:
    """The directory to which this process writes: `run_dir` in the first process, a temporary one in all others."""
    if placement.first:
        yield run_dir
        return
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@contextmanager
def _locked(config: TrainConfig, run_dir: Path) -> Iterator[None]:
    """Locks a run directory, and those of its seeds, each of which is a run directory like any other."""
    with locked(run_dir), ExitStack() as locks:
        for path in seed_dirs(config, run_dir):
            locks.enter_context(locked(path))
        yield


class RestoredRun(Generic[PartsT]):
    """The parts of a run with their initial state, or with `resume` the state in the newest checkpoint.

    Nothing is written before `recorder` is called. Raises `CheckpointError` if there is nothing to resume, and
    `ValueError` if a memory of the user's own breaks a law.
    """

    def __init__(self, config: TrainConfig, parts: PartsT, run_dir: Path, *, resume: bool):
        if not resume:
            check_own_memory(config, parts)
        self.config, self.resume = as_built(config, parts), resume
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
        # One of the processes that train a run together tracks it.
        trackers = Trackers(run_dir, asdict(config), config.trackers.wanted if jax.process_index() == 0 else ())
        try:
            return self._recorder(run_dir, watch, trackers)
        except BaseException:
            trackers.close()
            raise

    def _recorder(self, run_dir: Path, watch: Callable[[Progress], None], trackers: Trackers) -> Recorder:
        config = self.config
        lost = self.resume and self.checkpoint is None and _lines(run_dir / METRICS) > 1
        if not self.resume:
            run_dir.mkdir(parents=True, exist_ok=True)
            atomic_write_text(run_dir / CONFIG, to_json(config) + "\n")
        recorder = Recorder(config, run_dir, self.counters, trackers, watch, learner=self.learner, best=self.best)
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


def _train_host(restored: RestoredRun[HostParts], recorder: Recorder, interrupted: Callable[[], bool]) -> Outcome:
    run = HostRun(restored.config, restored.parts, recorder, restored.learner)
    try:
        if restored.checkpoint is not None:
            run.restore(restored.checkpoint)
        with saved(run.save):
            return run.run(interrupted)
    finally:
        run.close()


def _train_one_by_one(
    config: TrainConfig, run_dir: Path, *, resume: bool, watch: Callable[[Progress], None]
) -> Outcome:
    """Trains one seed after the other, each as in a run of its own."""
    outcomes: list[Outcome] = []
    with interruptible() as interrupted:
        for each in seed_configs(config):
            restored = _restored_seed(each, build_host(each), run_dir, resume=resume)
            recorder = restored.recorder(seed_dir(run_dir, each.seed), watch)
            if not outcomes:
                config = _begun(config, restored, run_dir, resume=resume)
            outcomes.append(_train_host(restored, recorder, interrupted))
            del restored, recorder
            gc.collect()  # frees the replay, whose run contains cycles of references, before the next is made
            if interrupted():
                break
    return joined(config, run_dir, outcomes, run_dir)


def _restored_seed(config: TrainConfig, parts: PartsT, run_dir: Path, *, resume: bool) -> RestoredRun[PartsT]:
    """One seed of several; with `resume` it starts anew if the run ended before it began."""
    if resume and not (run_dir / CONFIG).exists():
        raise CheckpointError(f"no run to resume in {run_dir}: it has no {CONFIG}")
    path = seed_dir(run_dir, config.seed)
    return RestoredRun(config, parts, path, resume=resume and (path / CONFIG).exists())


def _begun(config: TrainConfig, first: RestoredRun[Any], directory: Path, *, resume: bool) -> TrainConfig:
    """The settings of a run of several seeds, with the network and target as built; written unless `resume`."""
    config = config.replace(target_return=first.config.evaluation.target_return, network=first.config.network)
    if not resume:
        directory.mkdir(parents=True, exist_ok=True)
        atomic_write_text(directory / CONFIG, to_json(config) + "\n")
    return config


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
        with interruptible() as interrupted, saved(run.save_open):
            for _ in run.run(interrupted):
                report()
        return run.outcomes()
    finally:
        run.close()


def _train_together(
    config: TrainConfig,
    placement: Placement,
    run_dir: Path,
    directory: Path,
    *,
    resume: bool,
    watch: Callable[[Progress], None],
) -> Outcome:
    """Trains several seeds through one program, each as in a run of its own."""
    restored = [_restored_seed(each, build_device(each), run_dir, resume=resume) for each in seed_configs(config)]
    reports: list[Progress] = []
    recorders = _recorders(restored, seed_dirs(config, directory), reports.append)
    config = _begun(config, restored[0], directory, resume=resume)

    def report() -> None:
        reports.clear()
        for recorder in recorders:
            recorder.report()
        slowest = min(reports, key=lambda progress: (progress.counters.episode, progress.counters.random))
        row = mean_rows([recorder.rows for recorder in recorders])[-1:]
        watch(dataclasses.replace(slowest, config=config, row=row[0] if row else None))

    return joined(config, run_dir, _train_device(config, placement, restored, recorders, report), directory)


def train_through_one_program(configs: Sequence[TrainConfig], run_dirs: Sequence[Path]) -> list[Outcome]:
    """Trains runs on device whose `program_key` is the same, each in a run directory of its own.

    They are called through one compiled program, as the seeds of one run are. Each is the run that it would be alone,
    bit for bit if they differ in nothing but their seeds: a setting that the program takes as an input is rounded in
    other places than one that it was compiled for. Runs that have begun are resumed. The outcomes are in the order of
    `configs`.

    Raises what `train` does, and `ValueError` for settings that cannot share a program.
    """
    config = configs[0].replace(seeds=len(configs))
    if len({program_key(each) for each in configs}) > 1 or not config.env.on_device:
        raise ValueError("only runs on device that differ in seeds and numbers of the agent can share a program")
    with ExitStack() as locks:
        for path in run_dirs:
            locks.enter_context(locked(path))
        restored = [
            RestoredRun(each, build_device(each), path, resume=(path / CONFIG).exists())
            for each, path in zip(configs, run_dirs, strict=True)
        ]
        recorders = _recorders(restored, run_dirs, lambda _: None)
        return _train_device(config, Placement(config), restored, recorders, lambda: None)


def _recorders(
    restored: Sequence[RestoredRun[Any]], directories: Sequence[Path], watch: Callable[[Progress], None]
) -> list[Recorder]:
    """Opens the output files of several runs; if one cannot be opened, those of the others are closed."""
    recorders: list[Recorder] = []
    try:
        for each, directory in zip(restored, directories, strict=True):
            recorders.append(each.recorder(directory, watch))
    except BaseException:
        for recorder in recorders:
            recorder.close()
        raise
    return recorders
