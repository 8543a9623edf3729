"""What a run has done so far, and how it ended, as data."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from memoroids.acting.evaluation import Evaluation, Evaluations
from memoroids.runs.settings import TrainConfig


class TrainingError(RuntimeError):
    """A run that cannot continue. The message says why, and what was saved."""


@dataclass
class Counters:
    """What a run has done so far. Saved in every checkpoint."""

    random: int = 0
    """Random episodes collected and stored."""
    episode: int = 0
    """Training episodes that have finished. A rollout is never cut, so it may bring more than the budget asks for."""
    env_steps: int = 0
    """Environment steps, including those of random episodes."""
    random_steps: int = 0
    """Environment steps of random episodes."""
    updates: int = 0
    transitions: float = 0.0
    """Transitions in all batches up to the newest row of metrics."""
    slots: float = 0.0
    """Slots in the same batches, including padding and final observations."""
    bounds: list[int] = field(default_factory=lambda: [0, 0])
    """Lengths that fix the shape of batches (see `HostTapeBuffer` and `HostSegmentBuffer`); 0: not yet known."""
    rows: int = 0
    """Rows of metrics."""
    metrics_bytes: int = 0
    """The size of metrics.csv in bytes, to which a resumed run cuts it back."""
    seconds: float = 0.0
    """Wall-clock time, without the time between interruption and resumption."""
    returns: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Sum and number of the returns of training episodes since the newest row of metrics."""
    recent: dict[str, float] = field(default_factory=dict)
    """Each metric summed over the updates since the newest row, and the number of these updates as `updates`."""
    numbers: list[int] = field(default_factory=lambda: [0, 0])
    """The numbers of the next random and the next training episode, counting dropped ones too (host only)."""
    collection: dict[str, Any] | None = None
    """The episodes in progress (host only); see `memoroids.acting.collection_state.pack`."""
    faults: int = 0
    """Episodes dropped because of a fault of their environment."""
    faults_in_a_row: int = 0
    """Episodes dropped since the newest episode without a fault."""
    best: tuple[int, float] | None = None
    """Training episode and return of the best evaluation so far."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come, as passed to its `Watch`."""

    config: TrainConfig
    counters: Counters
    row: dict[str, float] | None
    """The newest row of metrics."""
    seconds_left: float | None
    """An estimate of the remaining time; None if there is none yet."""


class Outcome(NamedTuple):
    """How a run ended."""

    finals: Evaluations | None
    """The final evaluations on fresh seeds; None if the run was interrupted."""
    rows: list[dict[str, float]]
    """The rows of metrics."""
    run_dir: Path
    config: TrainConfig
    """The settings it ran with, the environment's own `target_return` among them."""
    seeds: tuple["Outcome", ...] = ()
    """The outcome of each seed, if there are several; `finals` are then over all of them, and `rows` are means."""

    @property
    def final(self) -> Evaluation | None:
        """The final evaluation that counts, see `EvaluationSettings.stochastic`; None if the run was interrupted."""
        return self.finals and self.finals.chosen(self.config.evaluation.stochastic)

    def fallen_from(self) -> dict[str, float] | None:
        """The row of the best evaluation if the final policy is much worse; None if it is not, or not known."""
        if self.final is None:
            return None
        deviation = float(self.final.returns.std())
        return fallen(self.rows, self.final.mean, deviation, self.config.evaluation.eval_episodes)


Watch = Callable[[Progress], None]
"""Called by a run to report its progress."""


def fallen(
    rows: Sequence[dict[str, float]], mean: float, deviation: float, eval_episodes: int
) -> dict[str, float] | None:
    """The row of the best evaluation if the final policy is much worse; None if it is not.

    Much worse: by a quarter of the range of all evaluations, and by five standard errors of one evaluation, more than
    the largest of many evaluations of one policy exceeds its mean. `mean` and `deviation`: of the returns of the final
    evaluation.
    """
    if not rows:
        return None
    best, worst = (end(rows, key=lambda row: row["eval_return"]) for end in (max, min))
    lost, error = best["eval_return"] - mean, deviation / math.sqrt(eval_episodes)
    return best if lost > (best["eval_return"] - worst["eval_return"]) / 4 and lost > 5 * error else None


def episodes_to(rows: list[dict[str, float]], level: float | None, stay: int = 5) -> int | None:
    """Training episodes until an evaluation reaches `level` and the next `stay` evaluations do not fall below it.

    None if that never happens, or if there is no level.
    """
    if level is None:
        return None
    returns = [row["eval_return"] for row in rows]
    for i in range(len(returns) - stay):
        if min(returns[i : i + stay + 1]) >= level:
            return int(rows[i]["episode"])
    return None
