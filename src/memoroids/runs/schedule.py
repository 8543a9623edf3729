"""When periodic events are due and how much the agent explores, for host and device environments alike."""

from typing import Any

from memoroids.agents.base import Traits
from memoroids.runs.settings import TrainConfig


def passed(every: int, before: int, after: int) -> bool:
    """Whether a count that rose from `before` to `after` has reached or passed a multiple of `every`."""
    return after // every > before // every


def epsilon(config: TrainConfig, number: Any, steps_share: Any) -> Any:
    """ε in the training episodes with these numbers, an array of the same shape (NumPy or JAX).

    ε follows the share of training episodes, or with a budget of `train_steps` the share `steps_share` of those steps.
    """
    share = config.budget.share_at(number) if config.budget.train_steps is None else steps_share
    return config.exploration.epsilon_at(share)


def exploration(config: TrainConfig, traits: Traits, number: Any, steps_share: Any) -> Any:
    """The `explore` argument of `act`: ε for an agent that explores by it, else 1, which samples from its policy."""
    if traits.exploration == "epsilon":
        return epsilon(config, number, steps_share)
    return 0.0 * number + 1.0
