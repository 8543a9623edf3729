"""When periodic events are due, and what changes over training: ε and the schedules of agents."""

import math
from typing import Any

import numpy as np

from memoroids.agents.base import Traits
from memoroids.runs.progress import Counters
from memoroids.runs.setting_groups import BudgetSettings, ReplaySettings
from memoroids.runs.settings import TrainConfig


def passed(every: int, before: int, after: int) -> bool:
    """Whether a count that rose from `before` to `after` has reached or passed a multiple of `every`."""
    return after // every > before // every


EVALUATIONS, CHECKPOINTS = 20, 5
"""Equal parts of the budget after each of which a run evaluates and saves if the settings do not say how often."""


def due(every: int | None, parts: int, budget: BudgetSettings, before: tuple[int, int], now: tuple[int, int]) -> bool:
    """Whether a periodic event is due; `before`, `now`: training episodes and environment steps.

    `every`: episodes from one event to the next; None: it is due after each of `parts` equal parts of the budget.
    """
    if every is not None:
        return passed(every, before[0], now[0])
    return int(parts * budget.share_done(*now)) > int(parts * budget.share_done(*before))


def save_due(config: TrainConfig, before: tuple[int, int], now: tuple[int, int]) -> bool:
    """Whether a checkpoint is due, see `due`."""
    return due(config.checkpoint.checkpoint_every, CHECKPOINTS, config.budget, before, now)


def until_due(every: int | None, parts: int, budget: BudgetSettings, counters: Counters) -> tuple[int, bool]:
    """How far it is to the next periodic event, see `due`, and whether that is in steps (True) or in episodes."""
    if every is not None:
        return every - counters.episode % every, False
    part = int(parts * budget.share_done(counters.episode, counters.env_steps)) + 1
    in_steps = budget.last_step is not None
    return -(-part * budget.total // parts) - (counters.env_steps if in_steps else counters.episode), in_steps


def share_trained(budget: BudgetSettings, episode: Any, env_steps: Any, random_steps: Any, ahead: int = 0) -> Any:
    """The share of the training that is done, between 0 and 1; the counts are integer scalars of NumPy or JAX.

    `episode`: training episodes so far. `env_steps`: environment steps so far, of which `random_steps` were those of
    random episodes. `ahead`: steps before the end of the budget at which the share already is 1. Random episodes are
    not part of training, so the share is 0 where training begins and 1 where the run ends.
    """
    if budget.last_step is None:
        return (episode / budget.train_episodes).clip(0.0, 1.0)
    total = (budget.total - ahead - random_steps).clip(1)
    return ((env_steps - random_steps) / total).clip(0.0, 1.0)


def share_at(budget: BudgetSettings, counters: Counters) -> Any:
    """`share_trained` where the counters of a run stand, a float64 scalar."""
    episode, env_steps, random_steps = map(np.int64, (counters.episode, counters.env_steps, counters.random_steps))
    return share_trained(budget, episode, env_steps, random_steps)


def updates_due(replay: ReplaySettings, episodes: Any, before: Any, after: Any) -> Any:
    """Updates after `episodes` training episodes, whose steps brought the steps of training from `before` to `after`.

    The counts are integers or integer scalars of NumPy or JAX.
    """
    if replay.updates_per_episode is not None:
        return episodes * replay.updates_per_episode
    return after // replay.steps_per_update - before // replay.steps_per_update


def epsilon(config: TrainConfig, number: Any, share: Any) -> Any:
    """ε in the training episodes with these numbers, an array of the same shape (NumPy or JAX).

    ε falls from the first training episode to the last. With a budget of `steps`, where the number of episodes is
    not known, it follows `share`, that of the training's steps, see `share_trained`.
    """
    budget = config.budget
    if budget.last_step is None:
        share = (number / max(budget.total - 1, 1)).clip(0.0, 1.0)
    return config.exploration.epsilon_at(0.0 * number + share)


def newest_epsilon(config: TrainConfig, traits: Traits, counters: Counters) -> float:
    """ε of the newest training episode; NaN for an agent that does not explore by ε."""
    if traits.exploration != "epsilon":
        return math.nan
    return float(np.float32(epsilon(config, np.float64(counters.episode - 1), share_at(config.budget, counters))))


def exploration(config: TrainConfig, traits: Traits, number: Any, share: Any) -> Any:
    """The `explore` argument of `act`: ε for an agent that explores by it, else 1, which samples from its policy."""
    if traits.exploration == "epsilon":
        return epsilon(config, number, share)
    return 0.0 * number + 1.0
