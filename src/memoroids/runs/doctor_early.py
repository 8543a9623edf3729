"""Findings that need no learning: what an environment shows to random actions, and what its steps cost."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from memoroids.runs.baseline import Baseline
from memoroids.runs.metrics import SPENT
from memoroids.runs.settings import TrainConfig

FAR = 100.0
"""Root mean square from which an element is too large: layers are initialised for inputs of about 1, so that a first
step of Adam at the usual learning rates turns the features around."""
VERY_FAR = 1e4
"""The same for observations that are normalised: the rounding of float32 then hides a ten-thousandth of a deviation."""
FAINT = 0.01
"""Root mean square below which all elements are too small: the begin flag, which is 1, then outweighs them all."""
CUT = 0.95
"""The share of episodes ended by a time limit from which they count as all, so that a lucky one hides nothing."""
SLOW_STEP = 5e-4
"""Seconds a step from which processes pay: handing a step over and back takes a tenth of a millisecond or two."""
SLOW_AT_ONCE = 5e-3
"""Seconds a step that are worth a warning before learning has been timed: choosing an action takes about a fifth."""
RECENT = 10
"""Rows that count as recent: few enough to follow a change, enough to average over the noise of an evaluation."""


class Finding(NamedTuple):
    """Something that is wrong with a run: its name, a line that says what is seen and what to try, and the figures."""

    name: str
    line: str
    figures: Mapping[str, float]


Rows = Sequence[dict[str, float]]


def observations_constant(config: TrainConfig, base: Baseline | None, rows: Rows) -> Finding | None:
    """Observations that are always the same, or do not change within an episode."""
    del config, rows
    if base is None or base.steps < 2 or not base.seen.elements or base.seen.moving:
        return None
    figures = {"elements": base.seen.elements, "changing": base.seen.changing, "steps": base.steps}
    if base.seen.changing == 0:
        what = "are always the same"
    elif max(base.lengths, default=base.steps) > 1:
        what = "change between episodes only, never within one"
    else:
        return None
    return Finding(
        "observations never change",
        f"in {base.steps:,} steps of random actions all {base.seen.elements:,} elements of the observation {what}: "
        "check that step() returns the new observation",
        figures,
    )


def observations_scale(config: TrainConfig, base: Baseline | None, rows: Rows) -> Finding | None:
    """Elements far from unit scale; pixels and symbols are brought there by the network itself."""
    del rows
    if base is None or not base.seen.elements or not base.seen.changing:
        return None
    seen, normalised = base.seen, config.network.normalise
    together = len(seen.mean) < seen.elements
    if not (sizes := seen.sizes):
        return None
    at = max(sizes, key=sizes.__getitem__)
    limit = VERY_FAR if normalised else FAR
    far = sum(size > limit for size in sizes.values())
    if far == 0 and (normalised or sizes[at] >= FAINT):
        return None
    which = "observations" if together else f"element {at} (from 0) of {seen.elements:,} of the observation"
    figures = {"mean": seen.mean[at], "deviation": seen.deviation[at], "low": seen.low[at], "high": seen.high[at]}
    also = f" ({far - 1:,} more are too large)" if far > 1 else " (all others are smaller still)" if not far else ""
    advice = "running statistics bring them to unit scale; if learning is slow, scale them in the environment"
    if not normalised:
        advice = "turn on --normalise, or scale them to about 1 in the environment"
    return Finding(
        "observations far from unit scale",
        f"{which}: from {seen.low[at]:.3g} to {seen.high[at]:.3g}, with mean {seen.mean[at]:.3g} and standard "
        f"deviation {seen.deviation[at]:.3g}{also}: {advice}",
        figures if together else {"element": at} | figures,
    )


def observations_outside(config: TrainConfig, base: Baseline | None, rows: Rows) -> Finding | None:
    """Elements far beyond the bounds that their space declares, by which they are scaled if these are narrow."""
    del rows
    if base is None or not base.seen.outside or config.env.check_bounds:
        return None
    seen = base.seen
    return Finding(
        "observations beyond their bounds",
        f"{seen.outside:,} of {seen.elements:,} elements of the observation were far beyond their bounds in "
        f"{base.steps:,} random steps: declare bounds that hold, since observations are scaled by them "
        "(--check-bounds drops such episodes)",
        {"outside": seen.outside, "elements": seen.elements, "steps": base.steps},
    )


def rewards_constant(config: TrainConfig, base: Baseline | None, rows: Rows) -> Finding | None:
    """Rewards, and with them returns, that are the same whatever is done."""
    if base is None or base.rewards is None or base.rewards[0] < base.rewards[1]:
        return None
    reward, expected = base.rewards[0], base.returns[0] if base.returns else 0.0
    if reward != 0 and max(base.lengths, default=0) == 1:
        return None  # `one_step` names the cause
    returns = [*base.returns, *(row[name] for row in rows for name in ("train_return", "eval_return"))]
    if any(abs(each - expected) > 1e-6 * max(1, abs(expected)) for each in returns if not math.isnan(each)):
        return None
    since = f" and {rows[-1]['episode']:,.0f} training episodes" if rows else ""
    rare = "; if rewards are only rare, explore more" + _exploration(config) if reward == 0 else ""
    return Finding(
        "rewards never vary",
        f"every reward was {reward:g} in {base.steps:,} random steps{since}, and every return {expected:g}, so there "
        f"is nothing to learn from: check what the environment pays for{rare}",
        {"reward": reward, "steps": base.steps},
    )


def _exploration(config: TrainConfig) -> str:
    """What an agent explores more with."""
    return " (raise --entropy)" if hasattr(config.agent, "entropy") else " (raise --epsilon-start)"


def one_step(config: TrainConfig, base: Baseline | None, rows: Rows) -> Finding | None:
    """Episodes that end with their first step."""
    del rows
    if base is None or not base.lengths or max(base.lengths) > 1:
        return None
    limit = config.env.max_episode_steps == 1
    why = "raise --max-episode-steps, which is 1" if limit else "check when step() returns terminated or truncated"
    return Finding(
        "episodes of one step",
        f"all {len(base.lengths)} random episodes ended with their first step, so there is nothing to remember: {why}",
        {"episodes": len(base.lengths), "truncated": base.truncated},
    )


def time_limit(config: TrainConfig, base: Baseline | None, rows: Rows) -> Finding | None:
    """Episodes that only a time limit ends, where it was set for this run or leaves nothing to learn from."""
    own = config.env.max_episode_steps
    if base is None or not base.lengths or max(base.lengths) == 1 or base.truncated < CUT * len(base.lengths):
        return None
    # Many tasks are made to go on until their limit, and pay on the way.
    if own is None and rewards_constant(config, base, rows) is None:
        return None
    return Finding(
        "always the time limit",
        f"{base.truncated} of {len(base.lengths)} random episodes were ended by the time limit, after "
        f"{max(base.lengths):,} steps: "
        + ("raise --max-episode-steps if the task needs more" if own else "the goal may need more steps than that"),
        {"truncated": base.truncated, "episodes": len(base.lengths), "longest": max(base.lengths)},
    )


def time_spent(rows: Rows) -> tuple[int, dict[str, float]] | None:
    """Steps of a host run's recent rows, and their seconds by column of `SPENT`; None if no row but the first has any.

    The first row holds the time of compilation.
    """
    recent = [row for row in rows[1:][-RECENT:] if not math.isnan(row["env_seconds"])]
    if not recent:
        return None
    steps = recent[-1]["env_steps"] - rows[-len(recent) - 1]["env_steps"]
    return int(steps), {column: sum(row[column] for row in recent) for column in SPENT}


def slow_environment(config: TrainConfig, base: Baseline | None, rows: Rows) -> Finding | None:
    """An environment whose steps cost more time than choosing actions and learning."""
    if (spent := time_spent(rows)) is not None:
        steps, seconds = spent[0], spent[1]["env_seconds"]
        rest = sum(spent[1].values()) - seconds
        if steps <= 0 or seconds / steps < SLOW_STEP or seconds <= rest:
            return None
        costs = f"{seconds / (seconds + rest):.0%} of the time, policy and updates the rest"
    elif base is not None and base.seconds is not None and base.steps and base.seconds / base.steps >= SLOW_AT_ONCE:
        steps, seconds, costs = base.steps, base.seconds, f"{1e3 * base.seconds / base.steps:.3g} ms a step"
    else:
        return None
    processes, envs = config.collection.processes, config.collection.num_envs
    more = f"--processes {envs}" if processes < envs else f"--num-envs {2 * envs} --processes {2 * envs}"
    return Finding(
        "slow environment",
        f"the environment takes {steps / seconds:,.0f} steps/s, {costs}: step several at once with {more}",
        {"steps_per_s": steps / seconds, "seconds": seconds, "steps": steps},
    )


FIRST: tuple[Callable[[TrainConfig, Baseline | None, Rows], Finding | None], ...] = (
    observations_constant,
    one_step,
    rewards_constant,
    time_limit,
    observations_outside,
    observations_scale,
    slow_environment,
)
"""Findings that hold or not from the start."""
