"""What a run's figures say about what goes wrong in it: a list of findings, each with what to try."""

import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

from memoroids.runs.baseline import Baseline
from memoroids.runs.doctor_early import FIRST, RECENT, Finding
from memoroids.runs.progress import fallen
from memoroids.runs.settings import TrainConfig

EARLIEST = 0.25
"""The share of training before which nothing is said of learning: many tasks are flat at first."""
LEAST_UPDATES, LEAST_ROWS = 100, 3
"""Gradient steps and evaluations before which nothing is said of learning, however short the training."""
ERRORS = 2.0
"""Standard errors by which returns must exceed those of random actions: beyond it chance is 1 in 40."""
SWAMPED = 10.0
"""Ratio of the value head's gradient to the policy head's: 0.2 to 0.7 in runs that learn, over 50 in CartPole with
rewards that are too large, which then learns many times more slowly."""
COLLAPSED, EARLY = 0.05, 0.5
"""Share of the largest entropy below which a policy hardly explores any more, and the share of training before which
this is early: it is to happen, but at the end."""
LOST_NATS = 3.0
"""The same for each continuous action: its standard deviation has then fallen to a twentieth, e⁻³."""
UNMOVED = 0.99
"""Share of the largest entropy above which a policy is uniform: two actions are then chosen with 0.44 and 0.56."""
FAST_KL, FAST_CLIPPED = 0.1, 0.4
"""KL divergence and clipped share of an update that leaves its rollout behind: usual are 0.005 to 0.03, and 0.05 to
0.2; implementations that stop an update early do so at 0.015 to 0.05."""
STILL_KL = 1e-6
"""KL divergence of an update that changes nothing to speak of: a thousandth of the usual."""


class Record(NamedTuple):
    """What is known of a run. `final`: mean and standard deviation of the last evaluation's returns, once there."""

    config: TrainConfig
    rows: Sequence[dict[str, float]] = ()
    baseline: Baseline | None = None
    final: tuple[float, float] | None = None

    @property
    def share(self) -> float:
        """The share of training that is done up to the newest row."""
        if not self.rows:
            return 0.0
        return self.config.budget.share_done(int(self.rows[-1]["episode"]), int(self.rows[-1]["env_steps"]))

    @property
    def recent(self) -> Sequence[dict[str, float]]:
        """The newest rows."""
        return self.rows[-RECENT:]

    @property
    def enough(self) -> bool:
        """Whether enough of training is done to speak of learning."""
        rows = self.rows
        return self.share >= EARLIEST and len(rows) >= LEAST_ROWS and rows[-1]["updates"] >= LEAST_UPDATES

    def middle(self, column: str, rows: Sequence[dict[str, float]] | None = None) -> float:
        """The median of a column over the recent rows, or `rows`; NaN if it has no number there."""
        values = [row[column] for row in (self.recent if rows is None else rows) if not math.isnan(row[column])]
        return median(values) if values else math.nan

    def setting(self, name: str) -> Any:
        """A setting of the agent; None if it has none of this name."""
        return getattr(self.config.agent, name, None)


def examine(record: Record) -> list[Finding]:
    """What is wrong with a run as far as its figures tell, in the order of what to look at first."""
    early = [found for each in FIRST if (found := each(record.config, record.baseline, record.rows)) is not None]
    # The others would follow from it.
    checks = _WITHOUT_REWARD if any(found.name == "rewards never vary" for found in early) else _LATER
    return early + [found for each in checks if (found := each(record)) is not None]


def _gain(record: Record) -> tuple[float, float] | None:
    """By how much recent returns exceed those of random actions, and the standard error; None if it is not known."""
    base = record.baseline
    if base is None or len(base.returns) < 2 or not record.rows:
        return None
    mean = fmean(row["eval_return"] for row in record.recent)
    episodes = len(record.recent) * record.config.evaluation.eval_episodes
    return mean - base.mean, base.deviation * math.sqrt(1 / len(base.returns) + 1 / episodes)


def _succeeds(record: Record) -> bool:
    """Whether recent returns reach the target or, without one, are better than those of random actions."""
    target, gain = record.config.evaluation.target_return, _gain(record)
    if target is not None:
        return fmean(row["eval_return"] for row in record.recent) >= target
    return gain is None or gain[0] > ERRORS * gain[1]


def _no_better_than_random(record: Record) -> Finding | None:
    gain, base = _gain(record), record.baseline
    if not record.enough or gain is None or base is None or gain[0] > ERRORS * gain[1]:
        return None
    mean = base.mean + gain[0]
    return Finding(
        "no better than random",
        f"after {record.share:.0%} of training the return is {mean:.4g}, that of random actions {base.mean:.4g} "
        f"(standard error of the difference {gain[1]:.2g}): try another --learning-rate or --memory, or train longer "
        "(--train-episodes, --steps)",
        {"return": mean, "random": base.mean, "standard_error": gain[1]},
    )


def _swamped(record: Record) -> Finding | None:
    if not record.enough or (record.config.evaluation.target_return is not None and _succeeds(record)):
        return None
    value, policy, norm = (record.middle(name) for name in ("value_grad", "policy_grad", "grad_norm"))
    limit = record.setting("max_grad_norm") or math.inf
    if not (policy > 0 and value / policy > SWAMPED and norm > limit):
        return None
    return Finding(
        "value loss swamps the policy",
        f"the value loss pulls {value / policy:.3g} times as hard as the policy's, and gradients of norm {norm:.3g} "
        f"are scaled down to {limit:g}: {'' if record.setting('scale_rewards') else 'turn on --scale-rewards, or '}"
        "lower --value-weight",
        {"ratio": value / policy, "value_grad": value, "policy_grad": policy, "grad_norm": norm},
    )


def _entropy(record: Record) -> Finding | None:
    now, base = record.middle("entropy"), record.baseline
    if not record.enough or base is None or math.isnan(now) or _succeeds(record):
        return None
    first, most = record.rows[0]["entropy"], base.most_entropy
    low = first - LOST_NATS * base.action_size if most is None else COLLAPSED * most
    figures = {"entropy": now, "first": first} | ({} if most is None else {"largest": most})
    if now < low:
        row = next(row for row in record.rows if row["entropy"] < low or row is record.rows[-1])
        share = record.config.budget.share_done(int(row["episode"]), int(row["env_steps"]))
        if share > EARLY:
            return None
        return Finding(
            "entropy collapsed",
            f"the policy's entropy fell from {first:.3g} to {now:.2g} nats, after {share:.0%} of training already, and "
            "it hardly explores: raise --entropy, or lower --learning-rate",
            figures | {"share": share},
        )
    still = abs(now - first) < 0.01 * base.action_size if most is None else now > UNMOVED * most
    if not still:
        return None
    return Finding(
        "entropy never moved",
        f"after {record.share:.0%} of training the policy's entropy is {now:.4g} nats, "
        f"{'as at first' if most is None else f'that of uniform actions {most:.4g}'}: raise --learning-rate, or lower "
        "--entropy",
        figures,
    )


def _change(record: Record) -> Finding | None:
    if not record.enough:
        return None
    kl, clipped = record.middle("kl"), record.middle("clipped")
    figures = {"kl": kl, "clipped": clipped}
    if kl > FAST_KL or clipped > FAST_CLIPPED:
        return Finding(
            "policy changes too fast",
            f"an update moves the policy by a KL divergence of {kl:.2g} and clips {clipped:.0%} of its transitions: "
            "lower --learning-rate or --epochs",
            figures,
        )
    # Over all rows, since a learning rate may fall to 0 at the end.
    kl, clipped = record.middle("kl", record.rows), record.middle("clipped", record.rows)
    if kl < STILL_KL and clipped == 0 and not _succeeds(record):
        return Finding(
            "policy does not change",
            f"an update moves the policy by a KL divergence of {kl:.1g} and clips nothing: raise --learning-rate, or "
            "lower --value-weight",
            {"kl": kl, "clipped": clipped},
        )
    return None


def _skipped(record: Record) -> Finding | None:
    if not record.rows or not (skipped := record.rows[-1]["skipped"]):
        return None
    updates = record.rows[-1]["updates"]
    return Finding(
        "updates skipped",
        f"{skipped:,.0f} of {updates:,.0f} updates were skipped because a loss or gradient was not finite "
        "(warnings.txt names it): lower --learning-rate, or make rewards and observations smaller",
        {"skipped": skipped, "updates": updates},
    )


def _fallen(record: Record) -> Finding | None:
    if record.final is None:
        return None
    mean, deviation = record.final
    best = fallen(record.rows, mean, deviation, record.config.evaluation.eval_episodes)
    if best is None:
        return None
    return Finding(
        "fallen from its best",
        f"the last policy's return is {mean:.4g}, the best was {best['eval_return']:.4g} after {best['episode']:,.0f} "
        "training episodes: take that one (memoroids evaluate --best RUN), and lower --learning-rate or set "
        "--learning-rate-end",
        {"final": mean, "best": best["eval_return"], "episode": best["episode"]},
    )


_LATER = (_no_better_than_random, _swamped, _entropy, _change, _skipped, _fallen)
_WITHOUT_REWARD = (_skipped,)

SAID_ELSEWHERE = ("updates skipped", "fallen from its best")
"""Findings that a run reports by other means while it trains, with more detail, or at its end."""
