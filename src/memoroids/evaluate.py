"""Greedy evaluation on seeds of its own; the training state is only read."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from memoroids.collect import RecurrentPolicy, collect
from memoroids.envs import HostEnv
from memoroids.memoroid import State


class Evaluation(NamedTuple):
    """Undiscounted returns and lengths of whole greedy episodes, (episodes,), in the order of their seeds."""

    returns: np.ndarray
    lengths: np.ndarray

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean())

    def interval(self, level: float = 0.95, draws: int = 10_000) -> tuple[float, float]:
        """A percentile bootstrap interval of the mean return over episodes, from a fixed seed."""
        generator = np.random.default_rng(0)
        n = len(self.returns)
        means = np.asarray([self.returns[generator.integers(n, size=n)].mean() for _ in range(draws)])
        low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
        return float(low), float(high)


class Evaluator:
    """Greedy episodes with an algorithm's `act`, compiled once and called with new parameters each time.

    `seed_of(index)` must give seeds that training never uses.
    """

    def __init__(self, envs: Sequence[HostEnv], act: Callable[..., Any], initial_state: State):
        self._envs = envs
        self._params: Any = None
        self._policy = RecurrentPolicy(
            act,
            initial_state,
            len(envs),
            params=lambda: self._params,
            epsilon=lambda number: np.zeros(number.shape, np.float32),
            key=jax.random.key(0),  # nothing is drawn where ε is 0
        )

    def __call__(self, params: Any, episodes: int, seed_of: Callable[[int], int]) -> Evaluation:
        self._params = params
        played = list(collect(self._envs, self._policy, seed_of, 0, episodes))
        self._params = None
        return Evaluation(np.asarray([e.total for e in played]), np.asarray([e.length for e in played]))
