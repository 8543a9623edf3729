"""Writes the files of a run while it trains: metrics, warnings, checkpoints, the curve and the summary."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from memoroids._util.files import atomic_write_text
from memoroids._util.provenance import conditions
from memoroids.acting.evaluation import Evaluations
from memoroids.agents.optimiser import tensor_names
from memoroids.envs import EnvironmentFault
from memoroids.runs import checkpoint
from memoroids.runs.baseline import Baseline, read_baseline, write_baseline
from memoroids.runs.doctor import SAID_ELSEWHERE, Record, examine
from memoroids.runs.metrics import MEANS, SPENT, MetricsFile
from memoroids.runs.plots import draw_curve
from memoroids.runs.progress import Counters, Progress, TrainingError, Watch, episodes_to
from memoroids.runs.run_directory import CHECKPOINTS, CURVE, METRICS, SUMMARY, WARNINGS
from memoroids.runs.schedule import EVALUATIONS, due
from memoroids.runs.settings import TrainConfig
from memoroids.runs.trackers import Trackers


class Recorder:
    """The counters and files of one run, and the parameters of its best evaluation so far.

    **Args:** `counters`: updated as the run proceeds; those of the checkpoint if the run is resumed. Rows of metrics
    written after this checkpoint are dropped. `learner`: the learner state with which the run starts or resumes.
    `best`: the parameters of the best evaluation before that.

    Raises `ValueError` if the metrics.csv of a resumed run cannot be continued.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        counters: Counters,
        trackers: Trackers,
        watch: Watch,
        *,
        learner: Any,
        best: Any = None,
    ):
        self.config, self.run_dir, self.counters = config, run_dir, counters
        if counters.faults_in_a_row > config.collection.max_faults:
            counters.faults_in_a_row = 0  # these faults ended the run; resuming it allows as many again
        self._trackers, self._watch, self._best = trackers, watch, best
        self._metrics = MetricsFile(run_dir / METRICS, keep=counters.metrics_bytes)
        for row in self._metrics.rows:
            trackers.write(row)
        self._tensors = tensor_names(learner.params)
        skipped, divergence = jax.device_get((learner.skipped, learner.divergence))
        self._skipped, self._longest, self._nonfinite = int(skipped), int(divergence.longest), divergence.tensors
        self._report_at = self._skipped + 1
        self._said: set[str] = set(SAID_ELSEWHERE)
        self._noted = ""  # the warnings of before the run was resumed
        now = time.perf_counter()
        self._started = now - counters.seconds
        self._begun, self._first = now, config.budget.share_done(counters.episode, counters.env_steps)
        self._then, self._steps = now, counters.env_steps
        self.rows = self._metrics.rows
        self.baseline: Baseline | None = None
        self.title = f"{config.env.id}, {config.network.memory}, seed {config.seed}"

    def add_updates(self, sums: Mapping[str, float], number: int) -> None:
        """Adds the metrics of `number` updates, summed over these updates, to those of the next row."""
        recent = self.counters.recent
        for name, value in {**sums, "updates": number}.items():
            recent[name] = recent.get(name, 0.0) + float(value)

    def add_returns(self, total: float, number: int) -> None:
        """Adds the returns of `number` training episodes, whose sum is `total`, to those of the next row."""
        before, count = self.counters.returns
        self.counters.returns = [before + total, count + number]

    def write_row(
        self,
        evaluated: Evaluations,
        epsilon: float,
        skipped: int,
        params: Callable[[], Any],
        spent: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Writes a row of metrics after an evaluation.

        If the mean return of the evaluation that counts is the best so far, a copy of the parameters that `params`
        returns is kept. `spent`: the seconds since the previous row by column, see `memoroids.runs.metrics.SPENT`.
        """
        counters, now = self.counters, time.perf_counter()
        recent = counters.recent
        updates = recent.get("updates", 0.0)
        counters.transitions += recent.get("transitions", 0.0)
        counters.slots += recent.get("slots", 0.0)
        counters.seconds = now - self._started
        total, episodes = counters.returns
        mean = evaluated.chosen(self.config.evaluation.stochastic).mean
        row = {
            "episode": counters.episode,
            "env_steps": counters.env_steps,
            "updates": counters.updates,
            "transitions": counters.transitions,
            "slots": counters.slots,
            **{name: recent[name] / updates if name in recent and updates else math.nan for name in MEANS},
            "epsilon": epsilon,
            "train_return": total / episodes if episodes else math.nan,
            "eval_return": mean,
            "eval_greedy": evaluated.greedy.mean,
            "eval_sampled": math.nan if evaluated.sampled is None else evaluated.sampled.mean,
            "skipped": skipped,
            **{name: spent.get(name, math.nan) for name in SPENT},
            "steps_per_s": (counters.env_steps - self._steps) / (now - self._then),
            "seconds": counters.seconds,
        }
        self._metrics.write(row)
        self._trackers.write(row)
        counters.rows, counters.metrics_bytes = counters.rows + 1, self._metrics.size
        counters.returns, counters.recent = [0.0, 0.0], {}
        self._then, self._steps = now, counters.env_steps
        if counters.best is None or mean > counters.best[1]:
            counters.best = counters.episode, mean
            # A copy, because the arrays themselves are donated to the next update.
            self._best = jax.tree.map(lambda leaf: np.array(leaf), params())
        self._examine()

    def add_faults(self, number: int, fault: str, *, good_between: bool = False) -> None:
        """Counts `number` episodes dropped because of an environment fault, and logs a warning.

        `good_between`: whether a good episode finished among these; the row then starts again at 1, since their order
        is not known. Raises `EnvironmentFault` if more episodes in a row were dropped than `max_faults` allows.
        """
        counters = self.counters
        counters.faults += number
        counters.faults_in_a_row = 1 if good_between else counters.faults_in_a_row + number
        if counters.faults_in_a_row <= self.config.collection.max_faults:
            self.warn(f"dropped {fault}")
            return
        row = f"{counters.faults_in_a_row} episodes in a row were" if counters.faults_in_a_row > 1 else "an episode was"
        raise EnvironmentFault(
            self._note(
                f"{row} dropped, --max-faults {self.config.collection.max_faults} allows no more; the last: {fault}"
            )
        )

    def watch_divergence(self, skipped: Any, divergence: Any) -> None:
        """Logs a warning if updates were skipped, naming the tensors that were not finite.

        The first skipped update is reported, then only when their number has at least doubled since the last report.
        Raises `TrainingError` if more updates in a row were skipped than `max_skipped` allows.
        """
        skipped, before = int(skipped), self._skipped
        if skipped == before:
            return
        longest, stop = int(divergence.longest), False
        if longest > self._longest:
            self._longest, stop = longest, longest > self.config.checkpoint.max_skipped
        stop = stop or int(divergence.in_a_row) > self.config.checkpoint.max_skipped
        if not stop and skipped < self._report_at:
            return
        tensors = np.asarray(divergence.tensors)
        names = [name for name, new in zip(self._tensors, tensors - self._nonfinite, strict=True) if new]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        message = (
            f"skipped {skipped - before} update{'s' * (skipped - before > 1)} up to training episode "
            f"{self.counters.episode}, non-finite: {', '.join(names[:3])}{more}"
        )
        self._skipped, self._nonfinite, self._report_at = skipped, tensors, 2 * skipped
        if stop:
            raise TrainingError(
                self._note(
                    f"{longest} updates in a row were skipped (--max-skipped {self.config.checkpoint.max_skipped}): "
                    f"{message}; the parameters before them are in {self.run_dir / CHECKPOINTS}"
                )
            )
        self.warn(message)

    def untrained(self) -> TrainingError:
        """The error of a run whose random episodes have used up the budget of environment steps."""
        return TrainingError(
            f"the first {self.counters.random} random episodes used up all {self.config.budget.last_step:,} "
            "steps, and nothing was trained: raise --steps or lower --random-episodes"
        )

    def warn(self, message: str) -> None:
        """Reports a problem that does not end the run, on standard error and in the run directory."""
        print(f"memoroids: {self._note(message)}", file=sys.stderr, flush=True)

    def _note(self, message: str) -> str:
        line = " ".join(message.split())
        # The message goes to standard error as well, so a full disk is no reason to end the run here.
        with contextlib.suppress(OSError), (self.run_dir / WARNINGS).open("a") as file:
            file.write(f"episode {self.counters.episode}: {line}\n")
        return line

    def begin(self, play: Callable[[], Baseline]) -> None:
        """Reads the baseline of the run, see `Baseline`; if it has none yet, has it played and writes it."""
        self.baseline = read_baseline(self.run_dir)
        if self.baseline is None:
            self.baseline = play()
            write_baseline(self.run_dir, self.baseline)
        path = self.run_dir / WARNINGS
        self._noted = path.read_text(errors="replace") if path.is_file() else ""
        self._examine()

    def _examine(self) -> None:
        """Reports each finding about the run when it holds for the first time, also in a resumed run."""
        for finding in examine(Record(self.config, self.rows, self.baseline)):
            if finding.name not in self._said and f": {finding.name}: " not in self._noted:
                self._said.add(finding.name)
                self.warn(f"{finding.name}: {finding.line}")

    def due(self) -> bool:
        """Whether an evaluation is due, as `eval_every` says, or because training has ended without one."""
        config, now = self.config, (self.counters.episode, self.counters.env_steps)
        last = (int(self.rows[-1]["episode"]), int(self.rows[-1]["env_steps"])) if self.rows else (0, 0)
        over = config.budget.share_done(*now) >= 1
        return due(config.evaluation.eval_every, EVALUATIONS, config.budget, last, now) or (over and now > last)

    def report(self) -> None:
        """Reports the progress of the run to its `Watch`."""
        counters, left = self.counters, None
        done = self.config.budget.share_done(counters.episode, counters.env_steps)
        if done > self._first:
            left = (time.perf_counter() - self._begun) / (done - self._first) * (1 - done)
        self._watch(Progress(self.config, replace(counters), self.rows[-1] if self.rows else None, left))

    def training_begins(self) -> None:
        """Starts the measurement from which the remaining time is estimated."""
        self._begun = time.perf_counter()
        self._first = self.config.budget.share_done(self.counters.episode, self.counters.env_steps)

    def save(self, parts: dict[str, Any]) -> None:
        """Writes a checkpoint of `parts` and the counters, and draws the learning curve."""
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
            keep=self.config.checkpoint.keep_checkpoints,
        )
        if self.rows:
            random = self.baseline.mean if self.baseline else math.nan
            draw_curve(self.run_dir / CURVE, self.rows, self.title, self.config.evaluation.way, random=random)

    def finish(self, finals: Evaluations) -> None:
        """Writes the summary of a finished run."""
        evaluation = self.config.evaluation
        returns, target = [row["eval_return"] for row in self.rows], evaluation.target_return
        final, ways = finals.chosen(evaluation.stochastic), finals.named(evaluation.stochastic)
        summary = {
            "evaluation": evaluation.way,
            "final_return": final.mean,
            "final_interval": final.interval(),
            "final_deviation": float(final.returns.std()),
            "final_episodes": len(final.returns),
            **{f"final_return_{way}": each.mean for way, each in ways.items()},
            **{f"final_interval_{way}": each.interval() for way, each in ways.items()},
            "last_eval_return": returns[-1]
            if returns
            else None,  # empty if the random episodes alone used up all steps
            "mean_eval_return": sum(returns) / len(returns) if returns else None,
            "max_eval_return": max(returns, default=None),
            "best_episode": self.counters.best and self.counters.best[0],
            "target_return": target,
            "episodes_to_target": episodes_to(self.rows, target),
            **{
                name: value
                for name, value in asdict(self.counters).items()
                if name
                not in ("returns", "recent", "numbers", "collection", "faults_in_a_row", "metrics_bytes", "best")
            },
        }
        atomic_write_text(self.run_dir / SUMMARY, json.dumps(summary, indent=2) + "\n")

    def close(self) -> None:
        """Closes the files and the trackers."""
        self._metrics.close()
        self._trackers.close()
