"""Where the time of a host run goes: in its environments, in choosing actions, or in updates."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from memoroids.acting.policies import Policy
from memoroids.envs import EnvironmentFault, HostEnv
from memoroids.envs.host.vector import HostEnvs, Stepped
from memoroids.memory.memoroid import State
from memoroids.runs.metrics import SPENT


class Stopwatch:
    """Seconds spent since the last reading, by column of metrics.csv. `clock()`: the time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._spent = dict.fromkeys(SPENT, 0.0)

    @contextmanager
    def on(self, column: str) -> Iterator[None]:
        """Counts the time within the block for this column."""
        begun = self._clock()
        try:
            yield
        finally:
            self._spent[column] += self._clock() - begun

    def read(self) -> dict[str, float]:
        """The seconds by column since the last reading, from which counting starts again."""
        spent, self._spent = self._spent, dict.fromkeys(SPENT, 0.0)
        return spent


class TimedEnvs:
    """Environments as they are, whose resets and steps are timed; see `HostEnvs`."""

    def __init__(self, envs: HostEnvs, watch: Stopwatch):
        self._envs, self._watch = envs, watch

    @property
    def example(self) -> HostEnv:
        """See `HostEnvs.example`."""
        return self._envs.example

    def __len__(self) -> int:
        return len(self._envs)

    @property
    def replayable(self) -> bool:
        """See `HostEnvs.replayable`."""
        return self._envs.replayable

    def abandon(self) -> None:
        """See `HostEnvs.abandon`."""
        self._envs.abandon()

    def ready(self, index: int) -> bool:
        """See `HostEnvs.ready`."""
        return self._envs.ready(index)

    def reset(self, index: int, seed: int) -> np.ndarray:
        """See `HostEnvs.reset`."""
        with self._watch.on("env_seconds"):
            return self._envs.reset(index, seed)

    def step(self, actions: Mapping[int, Any]) -> dict[int, Stepped | EnvironmentFault]:
        """See `HostEnvs.step`."""
        with self._watch.on("env_seconds"):
            return self._envs.step(actions)

    def close(self) -> None:
        """See `HostEnvs.close`."""
        self._envs.close()


class TimedPolicy:
    """A policy as it is, whose choices are timed; see `Policy`. They wait for the device themselves."""

    def __init__(self, policy: Policy, watch: Stopwatch):
        self._policy, self._watch = policy, watch

    def __call__(self, observation: np.ndarray, begin: np.ndarray, number: np.ndarray, step: np.ndarray) -> np.ndarray:
        """See `Policy.__call__`."""
        with self._watch.on("policy_seconds"):
            return self._policy(observation, begin, number, step)

    def memory(self) -> State:
        """See `Policy.memory`."""
        return self._policy.memory()

    def restore(self, memory: State, number: np.ndarray, step: np.ndarray) -> None:
        """See `Policy.restore`."""
        self._policy.restore(memory, number, step)


def timed_update(update: Callable[..., Any], watch: Stopwatch) -> Callable[..., Any]:
    """`update`, whose calls are timed; they return before the device has finished, which `await_update` waits for."""

    def timed(*arguments: Any) -> Any:
        with watch.on("update_seconds"):
            return update(*arguments)

    return timed


def await_update(learner: Any, watch: Stopwatch) -> None:
    """Waits for the updates of a learner, on time that is theirs."""
    with watch.on("update_seconds"):
        jax.block_until_ready(learner.updates)
