"""`memoroids evaluate`, `memoroids sensitivity` and `memoroids compare`: looking at runs that are there already."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from memoroids._util.messages import one_line
from memoroids.cli.failures import UsageError
from memoroids.cli.parse import RunDirectory, Trust, load_trusted_config, parse
from memoroids.cli.run_names import batching_of

if TYPE_CHECKING:
    from memoroids.runs.settings import TrainConfig


def _check_episodes(episodes: int, seed: int) -> None:
    if episodes < 1 or seed < 0:
        raise ValueError(f"episodes must be at least 1 and seed at least 0, got {episodes} and {seed}")


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `memoroids evaluate`. Raises `ValueError` for numbers out of range."""

    run: RunDirectory
    episodes: int = 100
    """Episodes to play."""
    seed: int = 0
    """Chooses another set of fresh environment seeds."""
    best: bool = False
    """Use the parameters of the best evaluation during training instead of the newest; its seeds selected them."""
    stochastic: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: as in training)")] = False
    """Which return comes first, for agents that sample from their policy: of sampled or of the best actions."""
    trust: Trust = False

    def __post_init__(self) -> None:
        _check_episodes(self.episodes, self.seed)


@dataclass(frozen=True)
class SensitivityOptions:
    """Options of `memoroids sensitivity`. Raises `ValueError` for numbers out of range."""

    run: RunDirectory
    episodes: int = 20
    """Greedy episodes to average over."""
    seed: int = 0
    """Chooses another set of fresh environment seeds."""
    output: Path | None = None
    """Directory to write sensitivity.csv, .png and .json to; by default the run's."""
    trust: Trust = False

    def __post_init__(self) -> None:
        _check_episodes(self.episodes, self.seed)


@dataclass(frozen=True)
class CompareOptions:
    """Options of `memoroids compare`."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of the runs."""
    output: Path | None = None
    """File to draw the learning curves to (PNG, PDF or SVG); by default none are drawn."""


def evaluate(arguments: list[str]) -> None:
    """Evaluates a run's parameters and prints the mean returns, greedy and sampled if the agent can do both."""
    options: EvaluateOptions = parse(EvaluateOptions, "evaluate", arguments)
    config = _prepare(options)
    from memoroids.runs.load import evaluate_run

    asked = {"--stochastic", "--no-stochastic"} & set(arguments)
    stochastic = options.stochastic if asked else config.evaluation.stochastic
    config.replace(stochastic=stochastic)  # refuses, before anything is played, what the agent cannot do
    found = evaluate_run(options.run, options.episodes, options.seed, best=options.best)
    for way, evaluation in found.named(stochastic).items():
        low, high = evaluation.interval()
        print(
            f"mean return {evaluation.mean:.4f}, 95% interval [{low:.4f}, {high:.4f}], "
            f"{options.episodes} {way} episodes of mean length {evaluation.lengths.mean():.1f} on fresh seeds"
        )


def sensitivity(arguments: list[str]) -> None:
    """Measures how far back a run's values depend on observations and writes the result."""
    options: SensitivityOptions = parse(SensitivityOptions, "sensitivity", arguments)
    _prepare(options)
    from memoroids.runs import run_sensitivity

    run_sensitivity.run(options.run, options.episodes, options.seed, options.output)


def _prepare(options: EvaluateOptions | SensitivityOptions) -> "TrainConfig":
    """Prepares this process for JAX and checks that the run's own code, if any, may be imported; its settings."""
    from memoroids._util.allocator import keep_freed_memory

    keep_freed_memory()
    return load_trusted_config(options.run, trust=options.trust)


def compare(arguments: list[str]) -> None:
    """Prints a table of runs and draws their learning curves."""
    options: CompareOptions = parse(CompareOptions, "compare", arguments)
    if not options.runs:
        raise UsageError("compare: name at least one run; see memoroids compare --help")
    print_comparison(options.runs, options.output)


def print_comparison(runs: Sequence[Path], output: Path | None) -> None:
    """Prints a line for each run, and draws their learning curves to `output`.

    Raises `ValueError` naming the file of a run that cannot be read.
    """
    from memoroids.envs import short_name
    from memoroids.runs.plots import draw_comparison
    from memoroids.runs.progress import episodes_to
    from memoroids.runs.run_directory import load_config, read_rows

    # Plain columns: a table whose cells wrap at the terminal's width cannot be read or copied.
    line = "{:26}{:19}{:16}{:>5}  {:24}{}{:>10}{:>9}  {!s}"
    settings = ("env", "memory", "batching", "seed")
    found = [(run, load_config(run), read_rows(run)) for run in runs]
    aimed = any(config.evaluation.target_return is not None for _, config, _ in found)
    column = f"{'target after':>14}" if aimed else ""
    print(line.format(*settings, "final return [95%]", column, "episodes", "seconds", "run"))
    curves: dict[str, Sequence[dict[str, float]]] = {}
    for run, config, rows in found:
        final = _final_return(run)
        short, batching = short_name(config.env.id), batching_of(config)
        reached = episodes_to(rows, config.evaluation.target_return)
        done, seconds = (f"{rows[-1]['episode']:.0f}", f"{rows[-1]['seconds']:.0f}") if rows else ("0", "0")
        settings = (short, config.network.memory, batching, config.seed)
        print(line.format(*settings, final, f"{reached or '-':>14}" if aimed else "", done, seconds, run))
        label = f"{short} {config.network.memory} {batching} seed {config.seed}"
        curves[label if label not in curves else f"{label} ({run})"] = rows
    if output is not None:
        ways = dict.fromkeys(config.evaluation.way for _, config, _ in found)
        what = f"return of {' or '.join(ways)} episodes"
        draw_comparison(output, curves, "evaluation during training", what)
        print(f"drawn to {output}")


def _final_return(run: Path) -> str:
    """The mean and 95% interval of a run's final evaluation; - for a run that is not finished."""
    from memoroids.runs.run_directory import SUMMARY, read_summary

    summary: dict[str, Any] | None = read_summary(run)
    if not summary:
        return "-"
    try:
        low, high = summary["final_interval"]
        return f"{summary['final_return']:.3f} [{low:.3f}, {high:.3f}]"
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run / SUMMARY} is not the summary of a run: {one_line(error)}") from error
