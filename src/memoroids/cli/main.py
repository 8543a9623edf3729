"""The command line: train, resume, evaluate, sensitivity, reproduce, report, compare, bench, list."""

import contextlib
import dataclasses
import io
import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from memoroids._util.allocator import keep_freed_memory
from memoroids._util.messages import one_line

# Everything heavier is imported by the command that needs it, so that --help and a typing error answer at once.


READING = ("resume", "evaluate", "sensitivity", "compare", "report")
"""Commands on what is there already, which may be another's: they import nothing from where they are run."""


class UsageError(Exception):
    """A command line that cannot be run; the message is the one line the user sees."""


def _check_episodes(episodes: int, seed: int) -> None:
    if episodes < 1 or seed < 0:
        raise ValueError(f"episodes must be at least 1 and seed at least 0, got {episodes} and {seed}")


@dataclass(frozen=True)
class Evaluate:
    """Evaluate the newest checkpoint of a run: mean return and 95% interval of greedy episodes on fresh seeds."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run."""
    episodes: int = 100
    """Episodes to play."""
    seed: int = 0
    """Chooses another set of fresh environment seeds."""
    best: bool = False
    """The parameters of the best evaluation during training instead of the newest; they were chosen by its seeds."""
    trust: bool = False
    """Import and call code of its own that the run names (a memory or an environment package.module:name)."""

    def __post_init__(self) -> None:
        _check_episodes(self.episodes, self.seed)


@dataclass(frozen=True)
class Sensitivity:
    """Measure how far back a run's values depend on observations, beside how far back its rewards do."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run."""
    episodes: int = 20
    """Greedy episodes to average over."""
    seed: int = 0
    """Chooses another set of fresh environment seeds."""
    output: Path | None = None
    """Directory to write sensitivity.csv, .png and .json to; the run's where none is named."""
    trust: bool = False
    """Import and call code of its own that the run names (a memory or an environment package.module:name)."""

    def __post_init__(self) -> None:
        _check_episodes(self.episodes, self.seed)


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its newest checkpoint."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run."""
    trust: bool = False
    """Import and call code of its own that the run names (a memory or an environment package.module:name)."""


@dataclass(frozen=True)
class Compare:
    """Compare finished runs: a table of what each reached, and their learning curves in one figure."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of the runs."""
    output: Path | None = None
    """File to draw the curves to (PNG, PDF or SVG); no figure where none is named."""


@dataclass(frozen=True)
class Reproduce:
    """Run one of the paper's figures as a grid of runs, going on where it was left, and write its report."""

    figure: Annotated[
        Literal["figure3", "figure4", "figure5-returns", "figure5-training", "figure6", "figure7", "figure8", "popgym"],
        tyro.conf.Positional,
    ]
    """The figure of Morad et al. 2024. 3, 8: sensitivity; 4, 6: tapes against segments; 5: wall-clock; 7: Atari; or
    popgym: its tasks at three levels, on device, against what was published."""
    scale: Literal["smoke", "laptop", "paper"] = "laptop"
    """smoke: minutes, every part runs, nothing is learned; laptop: tuned presets (Atari cut down), 3 seeds; paper: as
    published, 10 seeds."""
    tasks: tuple[str, ...] = ()
    """Environments instead of the figure's, each with every memory; RepeatPreviousEasy-k10 is Figure 3's."""
    memories: tuple[str, ...] = ()
    """Memories instead of the figure's, each on every task."""
    segment_lengths: tuple[int, ...] | None = None
    """Segment lengths L instead of the figure's."""
    segment_state: Literal["zero", "stored", "burn-in"] = "zero"
    """Memory state that segments start from."""
    segment_count: Literal["slots", "transitions"] = "slots"
    """What the batch size counts for segments: slots, padding included, or real transitions."""
    ablations: tuple[Literal["next-state", "loss"], ...] = ()
    """Also every batching with one choice of the paper's code: next states without o_0, the segments' loss."""
    seeds: int | None = None
    """Seeds of each run, from 0."""
    random_episodes: int | None = None
    """Random episodes of every run, instead of its preset's."""
    train_episodes: int | None = None
    """Training episodes of every run, instead of its preset's."""
    jobs: int | None = None
    """Runs at a time; one for each core where none is named."""
    output: Path | None = None
    """Directory of the grid; runs/FIGURE-SCALE where none is named."""
    retry: bool = False
    """Also run the cells again that failed before."""

    def __post_init__(self) -> None:
        for name in ("seeds", "train_episodes", "jobs"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.random_episodes is not None and self.random_episodes < 0:
            raise ValueError(f"random_episodes must be at least 0, got {self.random_episodes}")
        if any(length < 1 for length in self.segment_lengths or ()):
            raise ValueError(f"segment_lengths must be at least 1, got {min(self.segment_lengths or ())}")


@dataclass(frozen=True)
class Report:
    """Write the report of a grid again, finished or not: one HTML page, figures and CSV tables."""

    grid: Annotated[Path, tyro.conf.Positional]
    """Directory of the grid."""


@dataclass(frozen=True)
class List:
    """List what can be named on the command line."""

    what: Annotated[Literal["envs", "memories", "presets"], tyro.conf.Positional]
    """envs: POPGym's tasks; memories: the registry; presets: the paper's tasks with their presets' settings."""


@dataclass(frozen=True)
class Bench:
    """Measure, and print each figure beside its references and limits from the same process."""

    what: Annotated[
        Literal[
            "limits",
            "recurrence",
            "attention",
            "tape",
            "long_returns",
            "replay",
            "acting",
            "update",
            "device",
            "returns",
            "batching",
            "environments",
        ],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="WHAT"),
    ] = "limits"
    """limits: all from recurrence to device; recurrence: linear recurrences against a copy of memory; attention: matrix
    states in chunks; tape: tapes up to 2^20 slots; long_returns: returns over 1,000,000 slots; replay: drawing from
    4,000,000; acting: a step of the policy; update: DQN updates against matrix products; device: an episode with its
    update; returns: memoroids against padding and loops; batching: where a training episode's time goes;
    environments: device tasks against POPGym's Python."""
    repeats: int = 20
    """Timed repetitions; the median is printed."""
    output: Path | None = None
    """Directory to write the figures to, as a table and a picture (returns only)."""
    json: bool = False
    """Print one JSON object instead of the table, which goes to standard error."""

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")
        if self.output is not None and self.what != "returns":
            raise ValueError(f"output is for returns only, got it for {self.what}")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `memoroids`. Exits 0, 2 with one line on a wrong command line, 1 on a failure, 130 on Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a redirected stream may not know ε
    keep_freed_memory()
    try:
        _dispatch(arguments)
    except UsageError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        sys.exit(1)


def _fail(message: str, code: int) -> None:
    print(f"memoroids: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _dispatch(arguments: list[str]) -> None:
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "resume": _resume,
        "evaluate": _evaluate,
        "sensitivity": _sensitivity,
        "compare": _compare,
        "reproduce": _reproduce,
        "report": _report,
        "bench": _bench,
        "list": _list,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: memoroids COMMAND [OPTIONS]   (memoroids COMMAND --help for its options)\n")
        from memoroids.runs.settings import TrainConfig

        documented = {"train": TrainConfig, "resume": Resume, "evaluate": Evaluate, "sensitivity": Sensitivity}
        documented |= {"reproduce": Reproduce, "report": Report} | {"compare": Compare, "bench": Bench, "list": List}
        for name, config in documented.items():
            print(f"  {name:13}{(config.__doc__ or '').strip()}")
        return
    if arguments[0] == "--version":
        from memoroids._version import __version__

        print(__version__)
        return
    command, rest = arguments[0], arguments[1:]
    if command not in commands:
        from memoroids._util.messages import suggest

        raise UsageError(f"unknown command {command!r}{suggest(command, commands)}")
    if "" not in sys.path and (command not in READING or "--trust" in rest):
        # The user's own modules, next to where the command is run; after all that is installed, which they do not hide.
        sys.path.append("")
    import jax

    from memoroids.envs import EnvironmentFault
    from memoroids.runs.checkpoint import CheckpointError
    from memoroids.runs.recorder import TrainingError

    try:
        commands[command](rest)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except (EnvironmentFault, CheckpointError, TrainingError) as error:
        _fail(str(error), 1)
    except (MemoryError, OverflowError, jax.errors.JaxRuntimeError) as error:
        _fail(f"does not fit (lower --buffer-size, --batch-size or --width): {one_line(error)}", 1)
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename or ''}", 1)


def _parse(cls: Any, command: str, arguments: list[str], default: Any = None) -> Any:
    """tyro's parser, with its boxed complaints brought down to one line."""
    complaint = io.StringIO()
    options = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(cls, prog=f"memoroids {command}", args=arguments, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        # A box or, without a terminal's characters, rules of dashes: the complaint stands before the second rule.
        lines = [re.sub(r"^[│|+\s]+|[│|+\s]+$", "", line) for line in complaint.getvalue().splitlines()]
        rules = [i for i, line in enumerate(lines) if re.match(r"[╭╰─-]{2}", line)] + [len(lines)] * 2
        said = " ".join(line for line in lines[rules[0] + 1 : rules[1]] if line)
        raise UsageError(f"{command}: {said or 'cannot read the options'}; see memoroids {command} --help") from None


def _train(arguments: list[str]) -> None:
    from memoroids.runs.presets import preset, with_preset
    from memoroids.runs.settings import TrainConfig, resolve_memory

    # The preset depends on what is asked for, so those options are read first.
    asked = {name: getattr(TrainConfig, name) for name in ("env", "memory", "preset", "algorithm")}
    for i, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        key = name.removeprefix("--")
        if name.startswith("--") and key in asked:
            asked[key] = value or next(iter(arguments[i + 1 : i + 2]), "")
    helping = any(argument in ("-h", "--help") for argument in arguments)
    if not helping:
        resolve_memory(asked["memory"])
    values = preset(asked["preset"], asked["env"], asked["memory"], asked["algorithm"])
    # Joined afterwards: tyro takes a dictionary that is not empty for a set of options of its own.
    sizes = values.pop("memory_sizes", {})
    config: TrainConfig = _parse(TrainConfig, "train", arguments, with_preset(TrainConfig(env=asked["env"]), values))
    config = dataclasses.replace(config, memory_sizes=sizes | config.memory_sizes)
    from memoroids.envs import resolve

    config = dataclasses.replace(config, env=resolve(config.env))
    run_dir = config.run_dir or _new_run_dir(config)
    config = dataclasses.replace(config, run_dir=run_dir)
    _follow(config, run_dir, resume=False)


def _new_run_dir(config: Any) -> Path:
    from memoroids.envs import short_name

    short = short_name(config.env).replace("/", "-").replace(":", "-")
    memory = config.memory.replace(":", "-")
    if config.algorithm != "dqn":
        memory = f"{config.algorithm}-{memory}"
    batching = f"-segments{config.segment_length}" if config.batching == "segments" else ""
    seeds = f"seed{config.seed}" if config.seeds == 1 else f"seeds{config.seed}-{config.seed + config.seeds - 1}"
    number = 1
    while (path := Path("runs") / f"{short}-{memory}{batching}-{seeds}-{number}").exists():
        number += 1
    return path


def _resume(arguments: list[str]) -> None:
    options: Resume = _parse(Resume, "resume", arguments)
    _follow(_trusted(options), options.run, resume=True)


def _trusted(options: Resume | Evaluate | Sensitivity) -> Any:
    """A run's settings; refused where they name code to import that nobody said is to be trusted."""
    from memoroids.runs.run_directory import load_config

    config = load_config(options.run)
    if config.own_code and not options.trust:
        raise UsageError(
            f"{options.run} names code of its own, {' and '.join(config.own_code)}: add --trust to import it, if you "
            "know where the run comes from"
        )
    return config


def _follow(config: Any, run_dir: Path, *, resume: bool) -> None:
    """Trains under a progress display, then says how it went and what to try next."""
    from memoroids.cli.display import Display
    from memoroids.runs.placement import join_processes
    from memoroids.runs.train import train

    join_processes()
    begun = time.perf_counter()
    with Display(config, run_dir, resume=resume) as display:
        outcome = train(config, run_dir, resume=resume, watch=display.show)
    display.conclude(outcome, time.perf_counter() - begun)
    if outcome.final is None:
        sys.exit(130)


def _evaluate(arguments: list[str]) -> None:
    options: Evaluate = _parse(Evaluate, "evaluate", arguments)
    _trusted(options)
    from memoroids.runs.run_directory import evaluate_run

    evaluation = evaluate_run(options.run, options.episodes, options.seed, best=options.best)
    low, high = evaluation.interval()
    print(
        f"mean return {evaluation.mean:.4f}, 95% interval [{low:.4f}, {high:.4f}], "
        f"{options.episodes} greedy episodes of mean length {evaluation.lengths.mean():.1f} on fresh seeds"
    )


def _sensitivity(arguments: list[str]) -> None:
    options: Sensitivity = _parse(Sensitivity, "sensitivity", arguments)
    _trusted(options)
    from memoroids.runs import run_sensitivity as sensitivity

    sensitivity.run(options.run, options.episodes, options.seed, options.output)


def _compare(arguments: list[str]) -> None:
    options: Compare = _parse(Compare, "compare", arguments)
    from memoroids.cli.display import comparison

    if not options.runs:
        raise UsageError("compare: name at least one run; see memoroids compare --help")
    comparison(options.runs, options.output)


def _reproduce(arguments: list[str]) -> None:
    options: Reproduce = _parse(Reproduce, "reproduce", arguments)
    root = options.output or Path("runs") / f"{options.figure}-{options.scale}"
    command = shlex.join(("memoroids", "reproduce", *arguments))
    from memoroids.experiments import report, runner

    if options.figure == "figure5-returns":
        from memoroids.benchmarks import padded_returns as returns

        given = dataclasses.asdict(dataclasses.replace(options, figure="figure4", scale="laptop", output=None))
        plain = dataclasses.asdict(Reproduce("figure4"))
        if unused := sorted(name for name in given if given[name] != plain[name]):
            raise UsageError(f"reproduce figure5-returns takes --scale and --output only, got {unused[0]}")
        if (root / runner.GRID).exists():
            raise UsageError(f"{root} holds a grid: choose another --output")
        returns.run(5 if options.scale == "smoke" else 20, root)
        print(f"report: {report.write_returns(root, command)}")
        return
    from memoroids.experiments.grid import Choice
    from memoroids.experiments.reproduce import default_jobs, reproduce

    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(Choice)}
    jobs = options.jobs or default_jobs()
    if not reproduce(Choice(**values), root, jobs=jobs, retry=options.retry, command=command):
        _fail(f"some cells failed; the report says which and why: {root / report.REPORT / report.PAGE}", 1)


def _report(arguments: list[str]) -> None:
    options: Report = _parse(Report, "report", arguments)
    from memoroids.experiments import report

    print(report.write(options.grid))


def _bench(arguments: list[str]) -> None:
    options: Bench = _parse(Bench, "bench", arguments)
    from memoroids import benchmarks

    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        report = benchmarks.run(options.what, options.repeats, options.output)
    if options.json:
        print(json.dumps(report))


def _list(arguments: list[str]) -> None:
    options: List = _parse(List, "list", arguments)
    from memoroids.cli import display

    display.listing(options.what)
