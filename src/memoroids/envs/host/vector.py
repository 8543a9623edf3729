"""Several host environments stepped together within a time limit; a fault in one does not affect the others."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from memoroids.envs.faults import EnvironmentFault
from memoroids.envs.host.env import HostEnv


class Stepped(NamedTuple):
    """What one environment returned for an action."""

    observation: np.ndarray
    reward: float
    terminated: bool
    truncated: bool


class HostEnvs(Protocol):
    """Several environments of one kind, addressed by their index from 0."""

    @property
    def example(self) -> HostEnv:
        """One of the environments, or one like them, for shapes and spaces."""
        ...

    def __len__(self) -> int: ...

    @property
    def replayable(self) -> bool:
        """Whether an episode can be repeated in any environment from its seed and actions."""
        ...

    def abandon(self) -> None:
        """Gives up all episodes in progress. Whoever begins to collect calls it first."""
        ...

    def ready(self, index: int) -> bool:
        """Whether one environment can be reset now; if not, it can after further steps, also ones without actions."""
        ...

    def reset(self, index: int, seed: int) -> np.ndarray:
        """Resets one environment with `seed`; returns o_0. Raises `EnvironmentFault` if the environment misbehaves."""
        ...

    def step(self, actions: Mapping[int, Any]) -> dict[int, Stepped | EnvironmentFault]:
        """Steps each environment in `actions`, index to action; the result is a fault if the environment misbehaved."""
        ...

    def close(self) -> None:
        """Closes all environments. An error while closing one is ignored."""
        ...


T = TypeVar("T")


class _TooLong(BaseException):
    """Raised by the alarm; not an `Exception`, since an environment might catch those."""


@contextmanager
def alarm(limit: float | None) -> Iterator[Callable[[str, Callable[[], T]], T]]:
    """Yields a function (name, call) that runs `call()`, and raises `EnvironmentFault` if it takes more than `limit` s.

    See `LocalEnvs` for where it can. `name`: of the environment, for the message.
    """
    able = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if limit is None or not able:
        yield lambda name, call: call()
        return
    armed = fired = False
    begun = time.perf_counter()

    def on_alarm(number: int, frame: Any) -> None:
        nonlocal fired
        left = limit - (time.perf_counter() - begun)
        if left > 1e-3:  # the timer was set for an earlier call: a system call for each would cost more than a step
            signal.setitimer(signal.ITIMER_REAL, left, max(limit, 1.0))
            return
        fired = True
        if armed:
            raise _TooLong

    def timed(name: str, call: Callable[[], T]) -> T:
        nonlocal armed, fired, begun
        fired, armed, begun = False, True, time.perf_counter()
        try:
            answer = call()
            armed = False
        except _TooLong:
            raise late(name, limit) from None
        finally:
            armed = False
        if fired:
            raise late(name, limit)
        return answer

    before = signal.signal(signal.SIGALRM, on_alarm)
    # Repeated, since code that catches everything may have caught the first alarm.
    signal.setitimer(signal.ITIMER_REAL, limit, max(limit, 1.0))
    try:
        yield timed
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class SeparateEnvs:
    """Environments that do not depend on one another, for `HostEnvs`: each can be reset at any time."""

    replayable = True

    def abandon(self) -> None:
        """Nothing: a reset ends whatever was in progress."""

    def ready(self, index: int) -> bool:
        """Always."""
        del index
        return True


class LocalEnvs(SeparateEnvs):
    """Environments in this process, stepped one after the other.

    `time_limit` in seconds applies to every reset and step, but only in the main thread, not on Windows, and only to
    Python code: a call that hangs in C does not notice the alarm. `ProcessEnvs` kills the process in that case.
    """

    def __init__(self, envs: Sequence[HostEnv], *, time_limit: float | None = None):
        self.envs, self._limit = envs, time_limit

    @property
    def example(self) -> HostEnv:
        """The first environment."""
        return self.envs[0]

    def __len__(self) -> int:
        return len(self.envs)

    def reset(self, index: int, seed: int) -> np.ndarray:
        """See `HostEnvs.reset`."""
        with alarm(self._limit) as timed:
            return timed(self.envs[index].id, lambda: self.envs[index].reset(seed))

    def step(self, actions: Mapping[int, Any]) -> dict[int, Stepped | EnvironmentFault]:
        """See `HostEnvs.step`."""
        results: dict[int, Stepped | EnvironmentFault] = {}
        with alarm(self._limit) as timed:
            for index, action in actions.items():
                env = self.envs[index]
                try:
                    results[index] = Stepped(*timed(env.id, lambda env=env, action=action: env.step(action)))
                except EnvironmentFault as fault:
                    results[index] = fault
        return results

    def close(self) -> None:
        """Closes all environments. An error while closing one is ignored, so that the run can still end."""
        with alarm(self._limit) as timed:
            for env in self.envs:
                with contextlib.suppress(Exception, SystemExit):
                    timed(env.id, env.close)


def late(name: str, limit: float) -> EnvironmentFault:
    """The fault of an environment that exceeded the time limit."""
    return EnvironmentFault(f"{name} did not answer within {limit:g} s (--time-limit)")
