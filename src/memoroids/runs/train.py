"""Training: a run directory opened or taken up again, and the loop that its environment asks for."""

import dataclasses
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from memoroids.runs import checkpoint
from memoroids._util.files import atomic_write_text
from memoroids._util.provenance import conditions
from memoroids.acting.evaluation import Evaluation
from memoroids.runs.checkpoint import CheckpointError
from memoroids.runs.settings import TrainConfig
from memoroids.runs.device_loop import DeviceRun
from memoroids.envs import EnvironmentFault
from memoroids.runs.host_loop import HostRun
from memoroids.runs.metrics import Loggers, draw_comparison
from memoroids.runs.build import Parts, build
from memoroids.runs.placement import Placement
from memoroids.runs.recorder import Counters, Outcome, Progress, Recorder, TrainingError
from memoroids.runs.run_directory import CHECKPOINTS, CONFIG, CURVE, METRICS, SUMMARY, locked, seed_dir


def train(
    config: TrainConfig, run_dir: Path, *, resume: bool = False, watch: Callable[[Progress], None] = lambda _: None
) -> Outcome:
    """Trains as `config` says and writes `run_dir`: config, metrics, curve, summary and checkpoints.

    With several seeds `run_dir` holds a run directory for each, and the outcome is that of all together. With `resume`,
    goes on from the newest checkpoint. Ctrl-C ends the run after the episodes under way, with a checkpoint; so does an
    environment that misbehaves, after the episodes before the bad one. `watch` is called with the progress after every
    few episodes.

    Raises `ValueError`, `EnvironmentFault`, `CheckpointError` or `TrainingError`, each in one line.
    """
    _check_free(run_dir, resume)
    if not config.on_device:
        with locked(run_dir):
            _check_free(run_dir, resume)  # another may have begun and ended since
            opened = RestoredRun(config, run_dir, resume=resume)
            return _train_host(opened, opened.recorder(run_dir, watch))
    placement = Placement(config)
    with _written(run_dir, placement) as directory, locked(directory):
        _check_free(directory, resume)
        if config.seeds == 1:
            opened = RestoredRun(config, run_dir, resume=resume)
            recorder = opened.recorder(directory, watch)
            return _train_device(config, placement, [opened], [recorder], recorder.report)[0]
        with ExitStack() as each:  # a seed's own directory is a run like any other
            for i in range(config.seeds):
                each.enter_context(locked(seed_dir(directory, config.seed + i)))
            return _train_seeds(config, placement, run_dir, directory, resume=resume, watch=watch)


def _check_free(run_dir: Path, resume: bool) -> None:
    if not resume and (run_dir / CONFIG).exists():
        raise ValueError(f"{run_dir} holds another run: choose another --run-dir, or `memoroids resume {run_dir}`")


@contextmanager
def _written(run_dir: Path, placement: Placement) -> Iterator[Path]:
    """Where this process writes: the run directory, or, of all processes but the first, nowhere that lasts."""
    if placement.first:
        yield run_dir
        return
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


class RestoredRun:
    """A run built, and taken up from its newest checkpoint where it goes on; nothing is written before `record`."""

    def __init__(self, config: TrainConfig, run_dir: Path, *, resume: bool):
        self.config, self.resume = config, resume
        self.parts: Parts = build(config)
        self.counters = Counters()
        self.learner: Any = self.parts.algorithm.init(self.parts.network)
        self.restored: Path | None = None
        """The checkpoint it goes on from; none where the run ended before its first one: then it begins anew."""
        self.passed_over: list[CheckpointError] = []
        if resume:
            self.restored = checkpoint.newest_good(run_dir / CHECKPOINTS, self.passed_over.append, asdict(config))
            if self.restored is None and not (run_dir / CONFIG).exists():
                raise CheckpointError(f"no run to go on with in {run_dir}: neither {CONFIG} nor a checkpoint")
            if self.restored is None and (run_dir / SUMMARY).exists():
                raise CheckpointError(f"{run_dir} holds a finished run whose checkpoints are gone: it cannot go on")
        self.machine: dict[str, str] = {}
        """Where it was written."""
        self.best: Any = None
        if self.restored is not None:
            found = checkpoint.manifest(self.restored)
            try:
                self.counters = Counters(**found["counters"])
                self.machine = dict(found["machine"])
            except TypeError as error:
                raise CheckpointError(
                    f"unreadable checkpoint {self.restored}: its counters are not a run's: {error}"
                ) from error
            self.learner = checkpoint.restore(self.restored, "learner", self.learner)
            if self.counters.best is not None:
                self.best = checkpoint.restore(self.restored, "best", self.learner.params)

    def recorder(self, run_dir: Path, watch: Callable[[Progress], None]) -> Recorder:
        """Starts to write, to the run's directory or where else `run_dir` says."""
        config = self.config
        loggers = Loggers(run_dir, asdict(config), tensorboard=config.tensorboard, wandb=config.wandb)
        lost = self.resume and self.restored is None and _lines(run_dir / METRICS) > 1
        if not self.resume:
            run_dir.mkdir(parents=True, exist_ok=True)
            atomic_write_text(run_dir / CONFIG, config.to_json() + "\n")
        recorder = Recorder(config, run_dir, self.counters, loggers, watch, learner=self.learner, best=self.best)
        if lost:
            recorder.warn(f"{run_dir} has no checkpoint: the run begins anew, and so does its {METRICS}")
        for error in self.passed_over:
            recorder.warn(f"{error}; the checkpoint before it is used")
        if self.restored is not None:
            for name, value in conditions().items():
                if (before := self.machine.get(name)) != value:
                    recorder.warn(f"the run goes on elsewhere, and not bit for bit: {name} was {before}, now {value}")
        return recorder


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _train_host(opened: RestoredRun, recorder: Recorder) -> Outcome:
    run = HostRun(opened.config, opened.parts, recorder, opened.learner)
    try:
        if opened.restored is not None:
            run.restore(opened.restored)
        with _interruptible() as interrupted:
            return run.run(interrupted)
    except (EnvironmentFault, TrainingError):
        run.save()
        raise
    finally:
        run.close()


def _train_device(
    config: TrainConfig,
    placement: Placement,
    opened: list[RestoredRun],
    recorders: list[Recorder],
    report: Callable[[], None],
) -> list[Outcome]:
    run = DeviceRun(config, placement, [one.parts for one in opened], recorders, [one.learner for one in opened])
    try:
        run.restore([one.restored for one in opened])
        with _interruptible() as interrupted:
            for _ in run.run(interrupted):
                report()
        return run.outcomes()
    except (EnvironmentFault, TrainingError):
        run.save_open()
        raise
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
    """Several seeds: a run directory for each, as if it had been trained alone, and a figure of all."""
    configs = [dataclasses.replace(config, seed=config.seed + i, seeds=1, devices=1) for i in range(config.seeds)]
    directories = [seed_dir(run_dir, one.seed) for one in configs]
    opened = [
        RestoredRun(one, path, resume=resume and (path / CONFIG).exists())  # or killed before all had begun
        for one, path in zip(configs, directories, strict=True)
    ]
    if not resume:
        directory.mkdir(parents=True, exist_ok=True)
        atomic_write_text(directory / CONFIG, config.to_json() + "\n")
    slowest: list[Progress] = []
    recorders = [one.recorder(seed_dir(directory, one.config.seed), slowest.append) for one in opened]

    def report() -> None:
        slowest.clear()
        for recorder in recorders:
            recorder.report()
        last = min(slowest, key=lambda moment: (moment.counters.episode, moment.counters.random))
        row = _mean_rows([recorder.rows for recorder in recorders])[-1:]
        watch(dataclasses.replace(last, config=config, row=row[0] if row else None))

    outcomes = _train_device(config, placement, opened, recorders, report)
    rows = [outcome.rows for outcome in outcomes]
    if all(rows):
        curves = {f"seed {one.seed}": mine for one, mine in zip(configs, rows, strict=True)}
        title = f"{config.env}, {config.memory}, {config.seeds} seeds: greedy evaluation during training"
        draw_comparison(directory / CURVE, curves, title)
    finals = [outcome.final for outcome in outcomes if outcome.final is not None]
    together = None
    if len(finals) == len(outcomes):
        together = Evaluation(*(np.concatenate(column) for column in zip(*finals, strict=True)))
    return Outcome(together, _mean_rows(rows), run_dir)


def _mean_rows(rows: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    """Row by row, the mean over runs, as far as all have got."""
    return [{name: float(np.mean([row[name] for row in at])) for name in at[0]} for at in zip(*rows, strict=False)]


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a flag, read between episodes; the second acts as always."""
    raised: list[int] = []  # an Event's lock would be taken twice where one signal comes within the other's handler
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
