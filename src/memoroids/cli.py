"""The command line: train, resume, evaluate, compare, bench, list."""

import contextlib
import dataclasses
import io
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

# Everything heavier is imported by the command that needs it, so that --help and a typing error answer at once.


class UsageError(Exception):
    """A command line that cannot be run; the message is the one line the user sees."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluate the newest checkpoint of a run: mean return and 95% interval of greedy episodes on fresh seeds."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run."""
    episodes: int = 100
    """Episodes to play."""
    seed: int = 0
    """Chooses another set of fresh environment seeds."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.seed < 0:
            raise ValueError(f"episodes must be at least 1 and seed at least 0, got {self.episodes} and {self.seed}")


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its newest checkpoint."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run."""


@dataclass(frozen=True)
class Compare:
    """Compare finished runs: a table of what each reached, and their learning curves in one figure."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of the runs."""
    output: Path | None = None
    """File to draw the curves to (PNG, PDF or SVG); no figure where none is named."""


@dataclass(frozen=True)
class List:
    """List what can be named on the command line."""

    what: Annotated[Literal["envs", "memories", "presets"], tyro.conf.Positional]
    """envs: POPGym's tasks; memories: the registry; presets: the paper's tasks with both presets' settings."""


@dataclass(frozen=True)
class Bench:
    """Measure, and print each figure beside its reference from the same process."""

    what: Annotated[Literal["update", "scan"], tyro.conf.Positional]
    """update: DQN updates against their matrix products; scan: scan backends against each other."""
    repeats: int = 20
    """Timed repetitions; the median is printed."""

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `memoroids`. Exits 0, 2 with one line on a wrong command line, 1 on a failure, 130 on Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "" not in sys.path:
        sys.path.insert(0, "")  # the user's own modules, next to where the command is run
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a redirected stream may not know ε
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
        "compare": _compare,
        "bench": _bench,
        "list": _list,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: memoroids COMMAND [OPTIONS]   (memoroids COMMAND --help for its options)\n")
        from memoroids.config import TrainConfig

        documented = {"train": TrainConfig, "resume": Resume, "evaluate": Evaluate, "compare": Compare}
        documented |= {"bench": Bench, "list": List}
        for name, config in documented.items():
            print(f"  {name:10}{(config.__doc__ or '').strip()}")
        return
    if arguments[0] == "--version":
        from memoroids import __version__

        print(__version__)
        return
    command, rest = arguments[0], arguments[1:]
    if command not in commands:
        from memoroids.config import suggest

        raise UsageError(f"unknown command {command!r}{suggest(command, commands)}")
    import jax

    from memoroids.checkpoint import CheckpointError
    from memoroids.envs import EnvironmentFault
    from memoroids.train import TrainingError

    try:
        commands[command](rest)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except (EnvironmentFault, CheckpointError, TrainingError) as error:
        _fail(str(error), 1)
    except (MemoryError, OverflowError, jax.errors.JaxRuntimeError) as error:
        _fail(f"does not fit (lower --buffer-size, --batch-size or --width): {str(error).splitlines()[0]}", 1)
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
    from memoroids.config import TrainConfig, resolve_memory
    from memoroids.presets import preset

    # The preset depends on what is asked for, so those three options are read first.
    asked = {"env": TrainConfig.env, "memory": TrainConfig.memory, "preset": TrainConfig.preset}
    for i, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        key = name.removeprefix("--")
        if name.startswith("--") and key in asked:
            asked[key] = value or next(iter(arguments[i + 1 : i + 2]), "")
    helping = any(argument in ("-h", "--help") for argument in arguments)
    if not helping:
        resolve_memory(asked["memory"])
    default = with_preset(TrainConfig(), preset(asked["preset"], asked["env"], asked["memory"]))
    config: TrainConfig = _parse(TrainConfig, "train", arguments, default)
    from memoroids.envs import resolve_id

    config = dataclasses.replace(config, env=resolve_id(config.env))
    run_dir = config.run_dir or _new_run_dir(config)
    config = dataclasses.replace(config, run_dir=run_dir)
    _follow(config, run_dir, resume=False)


def with_preset(config: Any, values: dict[str, Any]) -> Any:
    """`config` with a preset's values, `dqn.` before the learner's."""
    own = {name: value for name, value in values.items() if "." not in name}
    learner = {name.partition(".")[2]: value for name, value in values.items() if "." in name}
    return dataclasses.replace(config, **own, dqn=dataclasses.replace(config.dqn, **learner))


def _new_run_dir(config: Any) -> Path:
    from memoroids.envs import short_name

    short = short_name(config.env).replace("/", "-").replace(":", "-")
    memory = config.memory.replace(":", "-")
    number = 1
    while (path := Path("runs") / f"{short}-{memory}-seed{config.seed}-{number}").exists():
        number += 1
    return path


def _resume(arguments: list[str]) -> None:
    options: Resume = _parse(Resume, "resume", arguments)
    from memoroids.rundir import load_config

    _follow(load_config(options.run), options.run, resume=True)


def _follow(config: Any, run_dir: Path, *, resume: bool) -> None:
    """Trains under a progress display, then says how it went and what to try next."""
    from memoroids.display import Display
    from memoroids.train import train

    begun = time.perf_counter()
    with Display(config, run_dir, resume=resume) as display:
        outcome = train(config, run_dir, resume=resume, watch=display.show)
    display.conclude(outcome, time.perf_counter() - begun)
    if outcome.final is None:
        sys.exit(130)


def _evaluate(arguments: list[str]) -> None:
    options: Evaluate = _parse(Evaluate, "evaluate", arguments)
    from memoroids.rundir import evaluate_run

    evaluation = evaluate_run(options.run, options.episodes, options.seed)
    low, high = evaluation.interval()
    print(
        f"mean return {evaluation.mean:.4f}, 95% interval [{low:.4f}, {high:.4f}], "
        f"{options.episodes} greedy episodes of mean length {evaluation.lengths.mean():.1f} on fresh seeds"
    )


def _compare(arguments: list[str]) -> None:
    options: Compare = _parse(Compare, "compare", arguments)
    from memoroids.display import comparison

    if not options.runs:
        raise UsageError("compare: name at least one run; see memoroids compare --help")
    comparison(options.runs, options.output)


def _bench(arguments: list[str]) -> None:
    options: Bench = _parse(Bench, "bench", arguments)
    from memoroids.benchmarks import scan, update

    {"update": update, "scan": scan}[options.what].run(options.repeats)


def _list(arguments: list[str]) -> None:
    options: List = _parse(List, "list", arguments)
    from memoroids import display

    display.listing(options.what)


if __name__ == "__main__":
    main()
