"""`memoroids tune`: searches settings, and compares what it found on fresh seeds."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from memoroids.cli.failures import CommandFailed
from memoroids.cli.parse import parse
from memoroids.cli.process_options import ProcessOptions

if TYPE_CHECKING:
    from memoroids.experiments.tune import TuneProgress


@dataclass(frozen=True)
class TuneOptions(ProcessOptions):
    """Options of `memoroids tune`, which several processes may run for one search. Raises `ValueError`."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.toml")]
    """The search: [settings] that all trials share, named as options of `memoroids train`, and [search], ranges."""
    output: Path | None = None
    """Directory of the search; by default runs/FILE."""


def tune(arguments: list[str]) -> None:
    """Searches settings, or goes on with a search, and writes the best as a preset and a report."""
    options: TuneOptions = parse(TuneOptions, "tune", arguments)
    import numpy as np

    from memoroids._util.locks import Held
    from memoroids.cli.process import prepare_process

    prepare_process()
    from memoroids.experiments import tune as tuning
    from memoroids.experiments.executors import make_executor
    from memoroids.experiments.reproduce import default_jobs
    from memoroids.experiments.statistics import interval, mean
    from memoroids.experiments.tune_file import read_tune

    told = read_tune(options.file)
    root, jobs = options.output or Path("runs") / options.file.stem, options.jobs or default_jobs()
    executor = make_executor(options.executor, jobs, root, options.resources)
    tuning.prepare(root, told)
    print(f"{told.title}: {told.trials} trials, {jobs} at a time -> {root}", flush=True)
    study = tuning.search(root, told, executor, watch=_show)
    if others := study.running():
        print(f"{others} trials are run by other processes: the last one compares what was found")
        return
    best, preset = study.best(), tuning.write(root, told, study)
    if best is None or preset is None:
        raise CommandFailed(f"no trial has finished: {root / tuning.TRIALS} and the logs in {root / 'cells'} say why")
    seeds = range(told.first_report_seed, told.first_report_seed + told.report_seeds)
    print(
        f"best: trial {best[0]}, return {best[1]:.4g}; comparing on seeds {seeds.start} to {seeds.stop - 1}", flush=True
    )
    try:
        page = tuning.compare(root, told, best[2], executor, command=shlex.join(("memoroids", "tune", *arguments)))
    except ValueError as error:
        if not isinstance(error.__cause__, Held):
            raise
        print("another process compares what was found")
        return
    for side, returns in tuning.finals(root).items():
        if not returns:
            raise CommandFailed(f"no run {side} has finished: {page} says why")
        low, high = interval(mean, [np.asarray(returns)])
        print(f"{side}: {np.mean(returns):.4g} [{low:.4g}, {high:.4g}]")
    print(f"use: memoroids train --preset {shlex.quote(str(preset))}\nreport: {page}")


def _show(moment: "TuneProgress") -> None:
    if moment.news is not None:
        print(f"{moment.ended}/{moment.total}: {moment.news}", flush=True)
