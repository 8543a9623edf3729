"""`memoroids evaluate`, `memoroids sensitivity` and `memoroids compare`: looking at runs that are there already."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from memoroids.cli.failures import UsageError
from memoroids.cli.parse import RunDirectory, Trust, load_trusted_config, parse
from memoroids.runs.seeds import check_episodes

if TYPE_CHECKING:
    from memoroids.runs.settings import TrainConfig


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
        check_episodes(self.episodes, self.seed)


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
        check_episodes(self.episodes, self.seed)


@dataclass(frozen=True)
class CompareOptions:
    """Options of `memoroids compare`."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of the runs; a run of several seeds counts with all its seeds."""
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
    from memoroids.cli.process import prepare_process

    prepare_process()
    return load_trusted_config(options.run, trust=options.trust)


def compare(arguments: list[str]) -> None:
    """Prints a table of runs and draws their learning curves."""
    options: CompareOptions = parse(CompareOptions, "compare", arguments)
    if not options.runs:
        raise UsageError("compare: name at least one run; see memoroids compare --help")
    from memoroids.cli.comparison import print_comparison

    print_comparison(options.runs, options.output)
