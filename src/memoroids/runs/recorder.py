"""What a run writes down while it trains: rows of metrics, checkpoints, the curve and the summary."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from memoroids.runs import checkpoint
from memoroids._util.files import atomic_write_text
from memoroids._util.provenance import conditions
from memoroids.acting.evaluation import Evaluation
from memoroids.agents.optimiser import tensor_names
from memoroids.runs.settings import TrainConfig
from memoroids.envs import EnvironmentFault
from memoroids.runs.metrics import MEANS, Loggers, MetricsFile, draw_curve
from memoroids.runs.run_directory import CHECKPOINTS, CURVE, METRICS, SUMMARY, WARNINGS


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says why and what is left."""


@dataclass
class Counters:
    """What a run has done so far; saved with every checkpoint."""

    random: int = 0
    """Random episodes stored."""
    episode: int = 0
    """Training episodes stored and trained on."""
    env_steps: int = 0
    updates: int = 0
    transitions: float = 0.0
    slots: float = 0.0
    bounds: list[int] = field(default_factory=lambda: [0, 0])
    """What fixes the shape of batches (see `HostTapeBuffer`, `HostSegmentBuffer`); 0: not known yet."""
    rows: int = 0
    metrics_bytes: int = 0
    """Bytes of metrics.csv: what a run that goes on keeps of it."""
    seconds: float = 0.0
    returns: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Sum and number of the returns of training episodes since the last row of metrics."""
    recent: dict[str, float] = field(default_factory=dict)
    """Sums over the updates since the last row, of each of their metrics, and their number as `updates`."""
    numbers: list[int] = field(default_factory=lambda: [0, 0])
    """The next episode of the random stream and of the training stream; those dropped are counted (host)."""
    collection: dict[str, Any] | None = None
    """Which episodes were open (host); see `memoroids.acting.host_collection.pack`."""
    faults: int = 0
    """Episodes dropped because their environment misbehaved."""
    faults_in_a_row: int = 0
    best: tuple[int, float] | None = None
    """The training episode and the return of the best evaluation so far."""


@dataclass(frozen=True)
class Progress:
    """A moment of a run, for whoever watches."""

    config: TrainConfig
    counters: Counters
    row: dict[str, float] | None
    """The newest row of metrics."""
    seconds_left: float | None


class Outcome(NamedTuple):
    """How a run ended: its evaluation on fresh seeds (None: interrupted), its rows and its directory."""

    final: Evaluation | None
    rows: list[dict[str, float]]
    run_dir: Path


Watch = Callable[[Progress], None]


class Recorder:
    """One run's counters and files, and the parameters of its `best` evaluation so far.

    What metrics.csv holds beyond what `counters` know of goes: it was written after the checkpoint that the run goes on
    from.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        counters: Counters,
        loggers: Loggers,
        watch: Watch,
        *,
        learner: Any,
        best: Any = None,
    ):
        """`learner`: the algorithm's state where the run starts or goes on; `best`: the best parameters until then."""
        self.config, self.run_dir, self.counters = config, run_dir, counters
        if counters.faults_in_a_row > config.max_faults:
            counters.faults_in_a_row = 0  # they ended the run, and whoever lets it go on gives it as many again
        self._loggers, self._watch, self._best = loggers, watch, best
        self._metrics = MetricsFile(run_dir / METRICS, keep=counters.metrics_bytes)
        self._tensors = tensor_names(learner.params)
        skipped, divergence = jax.device_get((learner.skipped, learner.divergence))
        self._skipped, self._longest, self._wrong = int(skipped), int(divergence.longest), divergence.tensors
        self._report_at = self._skipped + 1
        now = time.perf_counter()
        self._started = now - counters.seconds
        self._begun, self._first = now, config.share_done(counters.episode, counters.env_steps)
        self._then, self._steps = now, counters.env_steps
        self.rows = self._metrics.rows
        self.title = f"{config.env}, {config.memory}, seed {config.seed}"

    def add_updates(self, sums: Mapping[str, float], number: int) -> None:
        """Adds `number` updates that the counters have counted, by the sums of their metrics."""
        recent = self.counters.recent
        for name, value in {**sums, "updates": number}.items():
            recent[name] = recent.get(name, 0.0) + float(value)

    def add_returns(self, total: float, number: int) -> None:
        """Adds the summed returns of `number` training episodes."""
        before, count = self.counters.returns
        self.counters.returns = [before + total, count + number]

    def write_row(self, evaluated: float, epsilon: float, skipped: int, params: Callable[[], Any]) -> None:
        """Writes the row of an evaluation, and keeps what `params` gives where it is the best so far."""
        counters, now = self.counters, time.perf_counter()
        recent = counters.recent
        updates = recent.get("updates", 0.0)
        counters.transitions += recent.get("transitions", 0.0)
        counters.slots += recent.get("slots", 0.0)
        counters.seconds = now - self._started
        total, episodes = counters.returns
        row = {
            "episode": counters.episode,
            "env_steps": counters.env_steps,
            "updates": counters.updates,
            "transitions": counters.transitions,
            "slots": counters.slots,
            **{name: recent[name] / updates if updates else math.nan for name in MEANS},
            "epsilon": epsilon,
            "train_return": total / episodes if episodes else math.nan,
            "eval_return": evaluated,
            "skipped": skipped,
            "steps_per_s": (counters.env_steps - self._steps) / (now - self._then),
            "seconds": counters.seconds,
        }
        self._metrics.write(row)
        self._loggers.write(row)
        counters.rows, counters.metrics_bytes = counters.rows + 1, self._metrics.size
        counters.returns, counters.recent = [0.0, 0.0], {}
        self._then, self._steps = now, counters.env_steps
        if counters.best is None or evaluated > counters.best[1]:
            counters.best = counters.episode, evaluated
            # Copies: the arrays themselves are donated to the next update.
            self._best = jax.tree.map(lambda leaf: np.array(leaf), params())

    def add_faults(self, number: int, fault: str, *, since: bool = False) -> None:
        """Counts and reports episodes that their environment spoiled; `since`: a whole one came since the last of them.

        Raises `EnvironmentFault` where more than the settings allow did.
        """
        counters = self.counters
        counters.faults += number
        counters.faults_in_a_row = 1 if since else counters.faults_in_a_row + number
        if counters.faults_in_a_row <= self.config.max_faults:
            self.warn(f"dropped {fault}")
            return
        row = f"{counters.faults_in_a_row} episodes in a row were" if counters.faults_in_a_row > 1 else "an episode was"
        raise EnvironmentFault(
            self._note(f"{row} dropped, --max-faults {self.config.max_faults} allows no more; the last: {fault}")
        )

    def watch_divergence(self, skipped: Any, divergence: Any) -> None:
        """Says what was not finite in updates that were skipped since the last time: the first, then ever more rarely.

        Raises `TrainingError` where more than the settings allow were skipped in a row.
        """
        skipped, before = int(skipped), self._skipped
        if skipped == before:
            return
        longest, stop = int(divergence.longest), False
        if longest > self._longest:
            self._longest, stop = longest, longest > self.config.max_skipped
        stop = stop or int(divergence.in_a_row) > self.config.max_skipped
        if not stop and skipped < self._report_at:
            return
        tensors = np.asarray(divergence.tensors)
        names = [name for name, new in zip(self._tensors, tensors - self._wrong, strict=True) if new]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        said = (
            f"skipped {skipped - before} update{'s' * (skipped - before > 1)} up to training episode "
            f"{self.counters.episode}, not finite: {', '.join(names[:3])}{more}"
        )
        self._skipped, self._wrong, self._report_at = skipped, tensors, 2 * skipped
        if stop:
            raise TrainingError(
                self._note(
                    f"{longest} updates in a row were skipped (--max-skipped {self.config.max_skipped}): {said}; the "
                    f"parameters before them are in {self.run_dir / CHECKPOINTS}"
                )
            )
        self.warn(said)

    def warn(self, message: str) -> None:
        """Says what went wrong without ending the run, on standard error and in the run directory."""
        print(f"memoroids: {self._note(message)}", file=sys.stderr, flush=True)

    def _note(self, message: str) -> str:
        line = " ".join(message.split())
        # It is said on standard error as well: a full disk is no reason to end where what it tells of is not.
        with contextlib.suppress(OSError), (self.run_dir / WARNINGS).open("a") as file:
            file.write(f"episode {self.counters.episode}: {line}\n")
        return line

    def due(self) -> bool:
        """Whether an evaluation is: the newest row is from before the last time for one, or from before the end."""
        config, episode = self.config, self.counters.episode
        last = int(self.rows[-1]["episode"]) if self.rows else 0
        over = config.share_done(episode, self.counters.env_steps) >= 1
        return episode // config.eval_every > last // config.eval_every or (over and episode > last)

    def report(self) -> None:
        """Shows whoever watches where the run is."""
        counters, left = self.counters, None
        done = self.config.share_done(counters.episode, counters.env_steps)
        if done > self._first:
            left = (time.perf_counter() - self._begun) / (done - self._first) * (1 - done)
        self._watch(Progress(self.config, replace(counters), self.rows[-1] if self.rows else None, left))

    def training_begins(self) -> None:
        """Starts the clock that the time left is told by."""
        self._begun = time.perf_counter()
        self._first = self.config.share_done(self.counters.episode, self.counters.env_steps)

    def save(self, parts: dict[str, Any]) -> None:
        """Writes a checkpoint of `parts` and the counters, and draws the curve."""
        self.counters.seconds = time.perf_counter() - self._started
        step = self.counters.random + self.counters.episode
        if self._best is not None:
            parts = parts | {"best": self._best}
        self._metrics.sync()
        checkpoint.save(
            self.run_dir / CHECKPOINTS,
            step,
            parts,
            asdict(self.counters),
            config=asdict(self.config),
            machine=conditions(),
            keep=self.config.keep_checkpoints,
        )
        if self.rows:
            draw_curve(self.run_dir / CURVE, self.rows, self.title)

    def finish(self, final: Evaluation) -> None:
        """Writes the summary of a finished run."""
        returns = [row["eval_return"] for row in self.rows]
        summary = {
            "final_return": final.mean,
            "final_interval": final.interval(),
            "final_episodes": len(final.returns),
            "last_eval_return": returns[-1] if returns else None,  # random episodes alone may reach the last step
            "mean_eval_return": sum(returns) / len(returns) if returns else None,
            "max_eval_return": max(returns, default=None),
            "best_episode": self.counters.best and self.counters.best[0],
            "episodes_to_0.95": episodes_to(self.rows, 0.95),
            **{
                name: value
                for name, value in asdict(self.counters).items()
                if name not in ("returns", "recent", "numbers", "collection", "faults_in_a_row", "metrics_bytes", "best")
            },
        }
        atomic_write_text(self.run_dir / SUMMARY, json.dumps(summary, indent=2) + "\n")

    def close(self) -> None:
        """Closes its files."""
        self._metrics.close()
        self._loggers.close()


def episodes_to(rows: list[dict[str, float]], level: float, stay: int = 5) -> int | None:
    """Training episodes until the greedy evaluation first reaches `level` and stays there for the next `stay`."""
    returns = [row["eval_return"] for row in rows]
    for i in range(len(returns) - stay):
        if min(returns[i : i + stay + 1]) >= level:
            return int(rows[i]["episode"])
    return None
