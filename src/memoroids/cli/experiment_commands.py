"""`memoroids reproduce`, `gap`, `grid` and `report`: from grids of runs to reports."""

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from memoroids.cli.failures import CommandFailed, UsageError
from memoroids.cli.parse import parse
from memoroids.cli.process_options import ProcessOptions, check_counts

if TYPE_CHECKING:
    from memoroids.experiments.reproduce import Execution


@dataclass(frozen=True, kw_only=True)
class RunOptions(ProcessOptions):
    """Options of every command that runs a grid. Raises `ValueError` for numbers out of range."""

    together: int = 1
    """How many runs on device that differ only in seeds and numbers of the agent, such as the learning rate, go through
    one compiled program in one process: mapped on an accelerator, in turns on a CPU; their seconds are those of all."""
    retry: bool = False
    """Also rerun the cells that failed before."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "together")


@dataclass(frozen=True)
class ReproduceOptions(RunOptions):
    """Options of `memoroids reproduce`. Raises `ValueError` for numbers out of range."""

    figure: Annotated[
        Literal[
            "figure3",
            "figure4",
            "figure5-returns",
            "figure5-training",
            "figure6",
            "figure7",
            "figure8",
            "popgym",
            "memories",
            "suite",
        ],
        tyro.conf.Positional,
    ]
    """A figure of Morad et al. 2024. 3 and 8: sensitivity; 4 and 6: tapes against segments; 5: wall-clock time; 7:
    Atari. Or popgym: its tasks at three levels of difficulty, on device, against published results. Or memories: every
    memory with PPO's defaults at 100,000 parameters, on two tasks. Or suite: the environments on which the agents are
    developed, with the agents' defaults, against targets."""
    scale: Literal["smoke", "laptop", "paper"] = "laptop"
    """smoke: every part runs, in minutes, and nothing is learned; laptop: tuned presets (Atari reduced), 3 seeds;
    paper: as published, 10 seeds."""
    tasks: tuple[str, ...] = ()
    """Environments in place of the figure's, with every memory; figure3's is RepeatPreviousEasy-k10-num_decks2."""
    memories: tuple[str, ...] = ()
    """Memories in place of the figure's, each on every task."""
    algorithms: tuple[str, ...] = ()
    """Agents in place of the suite's, each on every environment (suite only)."""
    steps: int | None = None
    """Environment steps of every run, in place of what the suite or the preset says (suite, popgym and memories)."""
    segment_lengths: tuple[int, ...] | None = None
    """Segment lengths L in place of the figure's."""
    segment_state: Literal["zero", "stored", "burn-in"] = "zero"
    """Memory state that segments start from."""
    segment_count: Literal["slots", "transitions"] = "slots"
    """What the batch size counts for segments: slots, padding included, or real transitions."""
    ablations: tuple[Literal["next-state", "loss"], ...] = ()
    """Also run every batching with one choice of the paper's code: next states without o_0, or the segments' loss."""
    seeds: int | None = None
    """Number of seeds of each run, counted from the first one."""
    first_seed: int = 0
    """The first seed; grids of other seeds can be joined by `memoroids report`."""
    random_episodes: int | None = None
    """Random episodes of every run, in place of its preset's."""
    train_episodes: int | None = None
    """Training episodes of every run, in place of its preset's."""
    output: Path | None = None
    """Directory of the grid; by default runs/FIGURE-SCALE."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "seeds", "steps", "train_episodes")
        for name in ("random_episodes", "first_seed"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        if any(length < 1 for length in self.segment_lengths or ()):
            raise ValueError(f"segment_lengths must be at least 1, got {min(self.segment_lengths or ())}")


@dataclass(frozen=True)
class GapOptions(RunOptions):
    """Options of `memoroids gap`. Raises `ValueError` for numbers out of range."""

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")]
    """The environment, as `memoroids train` takes it."""
    twin: str = ""
    """An environment that is the same but hides nothing; POPGym's tasks on device have one: device:ObservedTASK."""
    memories: tuple[str, ...] = ("lru",)
    """Memories; agents without one are trained too."""
    algorithm: str = "ppo"
    """The agent that is trained."""
    seeds: int = 3
    """Number of seeds of each run, counted from 0."""
    steps: int | None = None
    """Environment steps of each run; by default what `memoroids train` takes."""
    output: Path | None = None
    """Directory of the runs and of the table; by default runs/gap-ENV."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "seeds", "steps")


@dataclass(frozen=True)
class GridOptions(RunOptions):
    """Options of `memoroids grid`. Raises `ValueError` for numbers out of range."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.toml")]
    """The grid: [settings] that all runs share, named as options of `memoroids train`, and [axes], lists of values."""
    scale: str | None = None
    """A scale of the file, [scale.NAME], whose settings, axes, preset and seeds replace those of the file itself."""
    output: Path | None = None
    """Directory of the grid; by default runs/FILE, or runs/FILE-SCALE."""


@dataclass(frozen=True)
class ReportOptions:
    """Options of `memoroids report`."""

    grid: Annotated[Path, tyro.conf.Positional]
    """Directory of the grid."""
    join: tuple[Path, ...] = ()
    """Directories of further grids of the same figure, whose runs stand in the same report."""
    records: Path | None = None
    """A file of records that an earlier report of POPGym's tasks has written, whose runs are compared too."""
    output: Path | None = None
    """Directory of the report; by default the grid's own. Joined grids and records need one."""

    def __post_init__(self) -> None:
        for name in ("join", "records"):
            if getattr(self, name) and self.output is None:
                raise ValueError(f"{name} needs an output, the directory of the report of all the runs")


def reproduce(arguments: list[str]) -> None:
    """Runs the grid of a figure or of the suite, or the timings of Figure 5, and writes the report."""
    options: ReproduceOptions = parse(ReproduceOptions, "reproduce", arguments)
    from memoroids.cli.process import prepare_process

    prepare_process()
    root = options.output or Path("runs") / f"{options.figure}-{options.scale}"
    command = shlex.join(("memoroids", "reproduce", *arguments))
    if options.figure == "figure5-returns":
        _time_returns(options, root, command)
    elif options.figure == "suite":
        _run_suite(options, root, command)
    else:
        _run_figure(options, root, command)


def _time_returns(options: ReproduceOptions, root: Path, command: str) -> None:
    """Measures Figure 5's returns and advantages in this process; there are no runs, so no other option applies."""
    from memoroids.benchmarks import padded_returns
    from memoroids.experiments import report, runner

    if unused := _given(options) - {"scale", "output"}:
        raise UsageError(f"reproduce figure5-returns takes --scale and --output only, got {min(unused)}")
    if (root / runner.GRID).exists():
        raise UsageError(f"{root} holds a grid: choose another --output")
    padded_returns.run(5 if options.scale == "smoke" else 20, root)
    print(f"report: {report.write_returns(root, command)}")


def _given(options: ReproduceOptions) -> set[str]:
    """The options that have other values than their defaults."""
    given, plain = (dataclasses.asdict(each) for each in (options, ReproduceOptions(options.figure)))
    return {name for name in given if given[name] != plain[name]}


def _run_suite(options: ReproduceOptions, root: Path, command: str) -> None:
    from memoroids.experiments.reproduce import reproduce_suite
    from memoroids.experiments.suite import SuiteChoice

    names = {field.name for field in dataclasses.fields(SuiteChoice)}
    if unused := _given(options) - names - {"output", *(field.name for field in dataclasses.fields(RunOptions))}:
        raise UsageError(f"reproduce suite trains agents with their defaults: it takes no {min(unused)}")
    if options.scale == "paper":
        raise UsageError("reproduce suite has the scales smoke and laptop, got paper")
    choice = SuiteChoice(**{name: getattr(options, name) for name in names})
    if not reproduce_suite(choice, root, _execution(options, command)):
        raise CommandFailed(f"some runs failed; the table says which and why: {root / 'report' / 'suite.md'}")


def _execution(options: RunOptions, command: str) -> "Execution":
    from memoroids.experiments.reproduce import Execution, default_jobs

    jobs = options.jobs or default_jobs()
    return Execution(jobs, command, options.together, options.retry, options.executor, options.resources)


def _run_figure(options: ReproduceOptions, root: Path, command: str) -> None:
    from memoroids.experiments import report
    from memoroids.experiments.figure_grids import Choice
    from memoroids.experiments.reproduce import reproduce as run_figure

    if options.algorithms:
        raise UsageError(f"algorithms is for reproduce suite, got it for {options.figure}")
    choice = Choice(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Choice)})
    if not run_figure(choice, root, _execution(options, command)):
        raise CommandFailed(f"some cells failed; the report says which and why: {root / report.REPORT / report.PAGE}")


def gap(arguments: list[str]) -> None:
    """Trains on an environment and on its twin, and writes the table of what memories are worth."""
    options: GapOptions = parse(GapOptions, "gap", arguments)
    from memoroids.cli.process import prepare_process

    prepare_process()
    from memoroids.experiments.figures import slug
    from memoroids.experiments.observability import GapChoice
    from memoroids.experiments.reproduce import measure_gap

    root = options.output or Path("runs") / f"gap-{slug(options.env)}"
    names = {field.name for field in dataclasses.fields(GapChoice)} - {"figure"}
    choice = GapChoice(**{name: getattr(options, name) for name in names})
    command = shlex.join(("memoroids", "gap", *arguments))
    if not measure_gap(choice, root, _execution(options, command)):
        raise CommandFailed(f"some runs failed; the table says which and why: {root / 'report' / 'gap.md'}")


def grid(arguments: list[str]) -> None:
    """Runs a grid of the user's own and writes its report."""
    options: GridOptions = parse(GridOptions, "grid", arguments)
    from memoroids.cli.process import prepare_process

    prepare_process()
    from memoroids.experiments import report
    from memoroids.experiments.grid_file import read_grid
    from memoroids.experiments.reproduce import run_grid

    name = options.file.stem if options.scale is None else f"{options.file.stem}-{options.scale}"
    root = options.output or Path("runs") / name
    command = shlex.join(("memoroids", "grid", *arguments))
    if not run_grid(read_grid(options.file, options.scale), root, _execution(options, command)):
        raise CommandFailed(f"some cells failed; the report says which and why: {root / report.REPORT / report.PAGE}")


def report(arguments: list[str]) -> None:
    """Rewrites a grid's report and prints where it is."""
    options: ReportOptions = parse(ReportOptions, "report", arguments)
    from memoroids.experiments import report as reports

    if (options.join or options.records) and options.output is not None:
        print(reports.write_joined((options.grid, *options.join), options.output, options.records))
    else:
        print(reports.write(options.grid, options.output))
