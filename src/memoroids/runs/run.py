"""A run in the hand: its settings, metrics, curve and evaluations, and its trained agent."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from memoroids._util.imports import importable, name_of, stand_for
from memoroids.acting.evaluation import Evaluations
from memoroids.envs.names import environment_name
from memoroids.runs.baseline import mean_baseline
from memoroids.runs.check_up import examined, seeds_of
from memoroids.runs.load import evaluate_run, load_acting
from memoroids.runs.metrics import FIELDS, mean_rows
from memoroids.runs.plots import curve_figure
from memoroids.runs.run_directory import METRICS, load_config, read_rows, read_summary
from memoroids.runs.seeds import check_episodes
from memoroids.runs.settings import TrainConfig
from memoroids.runs.trained_agent import TrainedAgent


def load(path: str | Path, *, trust: bool = False, env: Any = None, memory: Any = None) -> "Run":
    """The run in the directory `path`, finished or not.

        run = memoroids.load("runs/RepeatPreviousEasy-lru-seed0-1")
        run.metrics["eval_return"], run.evaluate(100).greedy.mean
        agent = run.agent()

    `trust`: whether the code that the run's settings name may be imported: an environment, a memory or an algorithm
    given as package.module:name. `env`, `memory`: the objects themselves, for a run of an earlier process that was
    trained with objects which cannot be imported by a name.

    Raises `ValueError` if the directory holds no run, for code that is not trusted, and for an object that the run has
    a name for.
    """
    path = Path(path)
    config = load_config(path)
    for what, name, passed in (
        ("env", config.env.device_name, None if env is None else environment_name(env)),
        ("memory", config.network.memory, None if memory is None else name_of(memory)),
    ):
        if passed is None:
            continue
        if importable(name):
            raise ValueError(f"{path} was trained with {what} {name}, which has a name: do not pass {what}")
        stand_for(name, passed.removeprefix("device:"))
    return Run(path, config, trust=trust)


class Run:
    """A run as its directory shows it, finished or not; what is asked for is read then.

    `run.path`, `run.config`: its directory and its settings.
    """

    def __init__(self, path: Path, config: TrainConfig, *, trust: bool = False):
        named = [name for name in config.own_code if importable(name.removeprefix("device:"))]
        if named and not trust:
            raise ValueError(
                f"{path} names code of its own, {' and '.join(named)}: pass trust=True to import it, if you know where "
                "the run comes from"
            )
        self.path, self.config = path, config

    def __repr__(self) -> str:
        network, summary = self.config.network, self.summary
        seeds = f", {self.config.placement.seeds} seeds" if self.config.placement.seeds > 1 else ""
        state = "not finished" if summary is None else f"final return {summary['final_return']:.4g}"
        state = "" if seeds else f", {state}"
        return (
            f"Run({str(self.path)!r}: {self.config.algorithm}, {network.memory} on {self.config.env.id}{seeds}{state})"
        )

    @cached_property
    def seeds(self) -> "list[Run]":
        """The run of each seed that has begun; of a run of one seed, only itself."""
        if self.config.placement.seeds == 1:
            return [self]
        return [Run(path, load_config(path), trust=True) for path in seeds_of(self.path)]

    @property
    def rows(self) -> list[dict[str, float]]:
        """The rows of metrics, one for each evaluation; with several seeds their means."""
        found = [read_rows(run.path) if (run.path / METRICS).exists() else [] for run in self.seeds]
        return found[0] if len(found) == 1 else mean_rows(found)

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """The columns of metrics.csv by name, (rows,) float64 each; see `memoroids.runs.metrics.FIELDS`."""
        rows = self.rows
        return {name: np.asarray([row[name] for row in rows], np.float64) for name in FIELDS}

    def frame(self) -> Any:
        """The metrics as a pandas data frame. Raises `ImportError` if pandas is not installed."""
        try:
            import pandas  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError("a data frame needs pandas: pip install pandas, or use run.metrics") from error
        return pandas.DataFrame(self.metrics)

    @property
    def summary(self) -> dict[str, Any] | None:
        """The content of summary.json; None if the run is not finished, or has several seeds."""
        return read_summary(self.path)

    @property
    def finished(self) -> bool:
        """Whether all its seeds have trained to the end."""
        seeds = self.seeds
        return len(seeds) == self.config.placement.seeds and all(run.summary is not None for run in seeds)

    @property
    def findings(self) -> list[str]:
        """What `memoroids doctor` finds in the run, a line each."""
        return [f"{found.name}: {found.line}" for run in self.seeds for found in examined(run.path)]

    def plot(self) -> Any:
        """The learning curve, a Matplotlib figure, which notebooks show."""
        config, random = self.config, mean_baseline(run.path for run in self.seeds)
        title = f"{config.env.id}, {config.network.memory}"
        return curve_figure(self.rows, title, config.evaluation.way, random=random)

    def evaluate(self, episodes: int = 100, *, seed: int = 0, best: bool = False) -> Evaluations:
        """Plays `episodes` episodes with the newest parameters, or those of the `best` evaluation.

        Their environment seeds are none that training used; `seed` chooses others. With several seeds, the episodes of
        all together. Raises `ValueError` and `CheckpointError` if there are no such parameters.
        """
        check_episodes(episodes, seed)
        found = [evaluate_run(run.path, episodes, seed, best=best) for run in self.seeds]
        return found[0] if len(found) == 1 else Evaluations.joined(found)

    def agent(
        self, *, best: bool = False, num_envs: int | None = None, stochastic: bool | None = None, seed: int = 0
    ) -> TrainedAgent:
        """The agent with the newest parameters, or those of the `best` evaluation, to act with.

        `num_envs`: acts in as many environments at once. `stochastic`: samples from the policy with random key `seed`,
        instead of taking its best actions; None does what counted in the run's evaluations.

        Raises `ValueError` and `CheckpointError` if there are no such parameters, and for a run of several seeds.
        """
        config, parts, params = load_acting(self.path, best=best)
        drawn = config.evaluation.stochastic if stochastic is None else stochastic
        return TrainedAgent(parts, params, num_envs=num_envs, stochastic=drawn, seed=seed)
