"""An environment that misbehaves when and how it is told to, importable by other processes."""

import contextlib
import ctypes
import os
import time
from typing import Any

import gymnasium as gym
import numpy as np

NAME = "faulty:test-faulty/Faulty-v0"
FAULTS = (
    "raise",
    "nan",
    "outside",
    "shape",
    "dtype",
    "reward",
    "nan reward",
    "flag",
    "few",
    "huge reward",
    "endless reward",
    "text for a reward",
    "quit",
    "hang",
    "swallow",
)
"""The faults it can produce at a step. In a process of its own it can also "exit", "freeze" and be "deaf"."""


REWARDS = {"huge reward": 1e39, "endless reward": 10**400, "text for a reward": "1.5"}


class Faulty(gym.Env):
    """Episodes of 4 to 7 steps, determined by seed and actions; those with seed % `every` == `rest` have a `fault`.

    The fault occurs at step `at`, or at the reset if `at` is 0. If a path `mark` is given, it occurs only while that
    file exists, and removes it.
    """

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def __init__(self, fault: str = "", every: int = 5, rest: int = 0, at: int = 2, mark: str = ""):
        self.fault, self.every, self.rest, self.at, self.mark = fault, every, rest, at, mark

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        assert seed is not None
        self.seed, self.t, self.memory = seed, 0, 0
        # All seeds of a run have the same lowest bits.
        self.length = 4 + (seed + seed // 8) % 4
        return self._misbehave(self._look()), {}

    def step(self, action: int):
        self.t += 1
        self.memory = (3 * self.memory + int(action)) % 7
        over = self.t == self.length
        look, reward, truncated = self._look(), self.memory / 7, over and self.length % 2 == 1
        answer = (look, reward, over and not truncated, truncated, {})
        if self._due():
            look = self._misbehave(look)
            if self.fault == "reward":
                return look, "much", *answer[2:]
            if self.fault == "nan reward":
                return look, float("nan"), *answer[2:]
            if self.fault == "flag":
                return look, reward, "no", False, {}
            if self.fault in REWARDS:
                return look, REWARDS[self.fault], *answer[2:]
            if self.fault == "few":
                return look, reward, over, {}
        return look, *answer[1:]

    def _look(self) -> np.ndarray:
        return np.asarray([self.np_random.uniform(-1, 1), self.memory / 7], np.float32)

    def _due(self) -> bool:
        return bool(self.fault) and self.seed % self.every == self.rest and self.t == self.at

    def _misbehave(self, look: Any) -> Any:
        if not self._due():
            return look
        if self.mark:
            if not os.path.exists(self.mark):
                return look
            os.remove(self.mark)
        match self.fault:
            case "raise":
                raise RuntimeError("the simulator is gone")
            case "nan":
                return look * np.nan
            case "outside":
                return look + 3
            case "shape":
                return look[:1]
            case "dtype":
                return look.astype(complex)
            case "quit":
                raise SystemExit(3)
            case "hang":
                time.sleep(600)
            case "swallow":
                with contextlib.suppress(BaseException):
                    time.sleep(600)
            case "deaf":
                ctypes.PyDLL(None).sleep(30)  # in C, holding the interpreter's lock
            case "freeze":
                os.kill(os.getpid(), 19)  # SIGSTOP: not even signal handlers run
            case "exit":
                os._exit(3)
        return look


gym.register("test-faulty/Faulty-v0", entry_point=Faulty)
