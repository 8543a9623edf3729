"""A Gymnasium environment of five steps, and the options of a run on it that takes a second."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

ENV = "test-cli/Toy-v0"
TINY = [
    word
    for option, value in {
        "--width": 8,
        "--random-episodes": 3,
        "--train-episodes": 4,
        "--batch-size": 10,
        "--buffer-size": 100,
        "--num-envs": 1,
        "--eval-every": 2,
        "--eval-episodes": 2,
        "--final-episodes": 2,
    }.items()
    for word in (option, str(value))
]


class Toy(gym.Env):
    """Five steps of noise; an observation or a call may be made to go wrong at a seed's third step."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    third_step: Callable[[int | None, np.ndarray], np.ndarray] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.seed, self.t = seed, 0
        return self._look(), {}

    def step(self, action: int):
        self.t += 1
        return self._look(), float(action), self.t == 5, False, {}

    def _look(self) -> np.ndarray:
        noise = self.np_random.normal(size=2).astype(np.float32)
        return Toy.third_step(self.seed, noise) if self.t == 3 and Toy.third_step is not None else noise


gym.register(ENV, entry_point=Toy)
