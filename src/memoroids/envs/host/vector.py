"""Copies of a host environment, stepped together within a time limit; what goes wrong in one stays in that one."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from memoroids.envs.faults import EnvironmentFault
from memoroids.envs.host.env import HostEnv


class Stepped(NamedTuple):
    """What one copy answered to an action."""

    observation: np.ndarray
    reward: float
    terminated: bool
    truncated: bool


class HostEnvs(Protocol):
    """Several copies of one environment; `example` is one of them or like them, to ask for shapes."""

    @property
    def example(self) -> HostEnv: ...

    def __len__(self) -> int: ...

    def reset(self, copy: int, seed: int) -> np.ndarray:
        """Starts the episode of `seed` in one copy; returns o_0. Raises `EnvironmentFault`."""
        ...

    def step(self, actions: Mapping[int, Any]) -> dict[int, Stepped | EnvironmentFault]:
        """Does one action in each of the named copies; a fault stands where a copy misbehaved."""
        ...

    def close(self) -> None:
        """Closes all environments."""
        ...


T = TypeVar("T")


class _TooLong(BaseException):
    """Not an Exception, which an environment may catch."""


class LocalEnvs:
    """Copies in this process, one after the other.

    `time_limit`, in seconds, holds for every reset and step, in the main thread alone, and for Python code alone: a
    call that hangs in C does not hear the alarm. `ProcessEnvs` ends such a process.
    """

    def __init__(self, envs: Sequence[HostEnv], *, time_limit: float | None = None):
        self.envs, self._limit = envs, time_limit

    @property
    def example(self) -> HostEnv:
        return self.envs[0]

    def __len__(self) -> int:
        return len(self.envs)

    def reset(self, copy: int, seed: int) -> np.ndarray:
        with self._alarm() as timed:
            return timed(self.envs[copy], lambda env: env.reset(seed))

    def step(self, actions: Mapping[int, Any]) -> dict[int, Stepped | EnvironmentFault]:
        results: dict[int, Stepped | EnvironmentFault] = {}
        with self._alarm() as timed:
            for copy, action in actions.items():
                try:
                    results[copy] = Stepped(*timed(self.envs[copy], lambda env, action=action: env.step(action)))
                except EnvironmentFault as fault:
                    results[copy] = fault
        return results

    @contextmanager
    def _alarm(self) -> Iterator[Callable[[HostEnv, Callable[[HostEnv], T]], T]]:
        """Gives a call that raises `EnvironmentFault` where it takes longer than the limit."""
        if self._limit is None or threading.current_thread() is not threading.main_thread():
            yield lambda env, call: call(env)
            return
        limit = self._limit
        armed = rung = False

        def ring(number: int, frame: Any) -> None:
            nonlocal rung
            rung = True
            if armed:
                raise _TooLong

        def timed(env: HostEnv, call: Callable[[HostEnv], T]) -> T:
            nonlocal armed, rung
            rung, armed = False, True
            try:
                # Again and again: whoever catches everything may have caught the first.
                signal.setitimer(signal.ITIMER_REAL, limit, max(limit, 1.0))
                answer = call(env)
                armed = False
            except _TooLong:
                raise late(env.id, limit) from None
            finally:
                armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
            if rung:
                raise late(env.id, limit)
            return answer

        before = signal.signal(signal.SIGALRM, ring)
        try:
            yield timed
        finally:
            signal.signal(signal.SIGALRM, before)

    def close(self) -> None:
        """Closes all; one that cannot be closed keeps no run from its end."""
        with self._alarm() as timed:
            for env in self.envs:
                with contextlib.suppress(Exception, SystemExit):
                    timed(env, HostEnv.close)


def late(name: str, limit: float) -> EnvironmentFault:
    """The fault of an environment that does not answer."""
    return EnvironmentFault(f"{name} did not answer within {limit:g} s (--time-limit)")
