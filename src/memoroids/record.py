"""What a run writes down while it trains: rows of metrics, checkpoints, the curve and the summary."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from memoroids import checkpoint
from memoroids.config import TrainConfig
from memoroids.evaluate import Evaluation
from memoroids.metrics import MEANS, Loggers, MetricsFile, draw_curve
from memoroids.rundir import CHECKPOINTS, CURVE, METRICS, SUMMARY


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
    seconds: float = 0.0
    returns: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Sum and number of the returns of training episodes since the last row of metrics."""
    recent: dict[str, float] = field(default_factory=dict)
    """Sums over the updates since the last row, of each of their metrics, and their number as `updates`."""


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


class Record:
    """One run's counters and files.

    Rows beyond those that `counters` knows of go: they were written after the checkpoint that the run goes on from.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        counters: Counters,
        loggers: Loggers,
        watch: Watch,
        *,
        skipped: int = 0,
    ):
        """`skipped`: updates that had been skipped where the run starts or goes on."""
        self.config, self.run_dir, self.counters = config, run_dir, counters
        self._loggers, self._watch = loggers, watch
        self._metrics = MetricsFile(run_dir / METRICS, keep=counters.rows)
        now = time.perf_counter()
        self._started = now - counters.seconds
        self._begun, self._first = now, config.share_done(counters.episode, counters.env_steps)
        self._then, self._steps, self._skipped = now, counters.env_steps, skipped
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

    def write_row(self, evaluated: float, epsilon: float, skipped: int) -> None:
        """Writes the row of an evaluation.

        Raises `TrainingError`, after the row, where every update since the last one was skipped as not finite.
        """
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
        counters.rows += 1
        counters.returns, counters.recent = [0.0, 0.0], {}
        newly, self._skipped = skipped - self._skipped, skipped
        self._then, self._steps = now, counters.env_steps
        if updates and newly == updates:
            raise TrainingError(
                f"loss or gradient not finite in all {updates:.0f} updates up to training episode "
                f"{counters.episode}; the parameters before them are in {self.run_dir / CHECKPOINTS}"
            )

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
        checkpoint.save(self.run_dir / CHECKPOINTS, step, parts, asdict(self.counters))
        if self.rows:
            draw_curve(self.run_dir / CURVE, self.rows, self.title)

    def finish(self, final: Evaluation) -> None:
        """Writes the summary of a finished run."""
        returns = [row["eval_return"] for row in self.rows]
        summary = {
            "final_return": final.mean,
            "final_interval": final.interval(),
            "final_episodes": len(final.returns),
            "last_eval_return": returns[-1],
            "mean_eval_return": sum(returns) / len(returns),
            "max_eval_return": max(returns),
            "episodes_to_0.95": episodes_to(self.rows, 0.95),
            **{name: value for name, value in asdict(self.counters).items() if name not in ("returns", "recent")},
        }
        (self.run_dir / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")

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
