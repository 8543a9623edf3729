"""Host environments in separate processes, which step in parallel and may die or hang without ending the run."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from memoroids.envs.faults import EnvironmentFault
from memoroids.envs.host.env import HostEnv
from memoroids.envs.host.vector import LocalEnvs, SeparateEnvs, Stepped, late

_RUN_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals sent to the whole process group: the run handles them, and ends its processes itself."""

START_LIMIT = 120.0
"""Seconds within which a process must start and make its environments."""


@dataclass
class _History:
    """What is needed to replay an episode, its seed and actions, and its latest observation, to check the replay."""

    seed: int
    observation: np.ndarray
    actions: list[Any] = field(default_factory=list)


class _Dead(Exception):
    """Raised when a process has ended or does not answer; `fault` says which."""

    def __init__(self, fault: EnvironmentFault):
        super().__init__(str(fault))
        self.fault = fault


class ProcessEnvs(SeparateEnvs):
    """`num_envs` environments `HostEnv(name, **options)`, divided over `processes` that start with the first episode.

    Results do not depend on the number of processes. A process that dies, or takes longer than `time_limit` seconds to
    answer, is restarted: the episode that caused this is lost; the process's other episodes are replayed from their
    seeds and actions, and are lost as well if the replay differs.
    """

    def __init__(self, name: str, options: dict[str, Any], num_envs: int, *, processes: int, time_limit: float):
        self.example = HostEnv(name, **options)
        self._made_with = name, options
        self._num_envs, self._limit = num_envs, time_limit
        self._processes: list[tuple[Any, Connection] | None] = [None] * min(processes, num_envs)
        self._history: dict[int, _History] = {}
        self._lost: dict[int, EnvironmentFault] = {}

    def __len__(self) -> int:
        return self._num_envs

    def reset(self, index: int, seed: int) -> np.ndarray:
        """See `HostEnvs.reset`."""
        self._lost.pop(index, None)
        self._history.pop(index, None)
        process = index % len(self._processes)
        try:
            self._send(process, [(index, "reset", seed)])
            observation = self._receive(process)
        except _Dead as dead:
            self._restart(process)
            raise EnvironmentFault(f"{dead.fault} at reset (seed {seed})") from None
        if isinstance(observation, EnvironmentFault):
            raise observation
        self._history[index] = _History(seed, observation)
        return observation

    def step(self, actions: Mapping[int, Any]) -> dict[int, Stepped | EnvironmentFault]:
        """See `HostEnvs.step`."""
        results: dict[int, Stepped | EnvironmentFault] = {}
        waiting: dict[int, list[int]] = {}
        for index in actions:
            if index in self._lost:
                results[index] = self._lost.pop(index)
            else:
                waiting.setdefault(index % len(self._processes), []).append(index)
        asked = {process for process, indices in waiting.items() if self._ask(process, indices, actions)}
        for process, indices in waiting.items():
            while indices:
                index = indices.pop(0)
                try:
                    if process not in asked:
                        raise _Dead(self._died(process))
                    results[index] = self._stepped(index, actions[index], self._receive(process))
                except _Dead as dead:
                    step = len(self._history.pop(index).actions) + 1
                    results[index] = EnvironmentFault(f"{dead.fault} at step {step}")
                    self._restart(process)
                    results |= {other: self._lost.pop(other) for other in indices if other in self._lost}
                    indices[:] = [other for other in indices if other not in results]
                    asked -= {process}
                    if indices and self._ask(process, indices, actions):
                        asked |= {process}
        return results

    def _ask(self, process: int, indices: list[int], actions: Mapping[int, Any]) -> bool:
        """Sends a process its actions; returns whether it could. In one message, since many might fill the pipe."""
        try:
            self._send(process, [(index, "step", actions[index]) for index in indices])
        except _Dead:
            return False
        return True

    def _stepped(self, index: int, action: Any, answer: Any) -> Stepped | EnvironmentFault:
        """The result of a step, after the episode's history is brought up to date."""
        if isinstance(answer, EnvironmentFault):
            self._history.pop(index)
            return answer
        stepped = Stepped(*answer)
        if stepped.terminated or stepped.truncated:
            self._history.pop(index)
        else:
            self._history[index].actions.append(action)
            self._history[index].observation = stepped.observation
        return stepped

    def _start(self, process: int) -> tuple[Any, Connection]:
        # Spawned, since a process forked after JAX has started its threads may hang.
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        indices = range(process, self._num_envs, len(self._processes))
        main = threading.current_thread() is threading.main_thread()
        arguments = (there, *self._made_with, list(indices), os.getpid(), main)
        child = context.Process(target=_serve, args=arguments, daemon=True)
        with _blocked_signals():
            child.start()  # inherits the mask, so the signals are blocked from its first instruction on
        there.close()
        self._processes[process] = child, here
        try:
            fault = self._receive(process, START_LIMIT)
        except _Dead as dead:
            fault = dead.fault
        if fault is not None:
            self._end(process)  # a late answer must not be taken for the answer to the next request
            raise EnvironmentFault(f"cannot start an environment process: {fault}")
        return child, here

    def _send(self, process: int, requests: list[tuple[int, str, Any]]) -> None:
        _, connection = self._processes[process] or self._start(process)
        try:
            connection.send(requests)
        except OSError:
            raise _Dead(self._died(process)) from None

    def _receive(self, process: int, limit: float | None = None) -> Any:
        running = self._processes[process]
        assert running is not None
        limit = limit or self._limit
        try:
            if not running[1].poll(limit):
                raise _Dead(late(self.example.id, limit))
            return running[1].recv()
        except (EOFError, OSError):
            raise _Dead(self._died(process)) from None

    def _died(self, process: int) -> EnvironmentFault:
        running = self._processes[process]
        assert running is not None
        running[0].join(1.0)
        return EnvironmentFault(f"{self.example.id}: its process ended with exit status {running[0].exitcode}")

    def _restart(self, process: int) -> None:
        """Restarts a process and replays its unfinished episodes; one that ends the process again is lost as well."""
        self._end(process)
        for index in range(process, self._num_envs, len(self._processes)):
            history = self._history.get(index)
            if history is None:
                continue
            try:
                if np.array_equal(self._replay(process, index, history), history.observation):
                    continue
                self._lose(index, EnvironmentFault(f"{self.example.id}: a replayed episode diverged"))
            except EnvironmentFault as fault:
                self._lose(index, fault)
            except _Dead as dead:
                self._lose(index, dead.fault)
                return self._restart(process)

    def _lose(self, index: int, fault: EnvironmentFault) -> None:
        self._history.pop(index)
        self._lost[index] = EnvironmentFault(f"{fault}, after its process was restarted because of another episode")

    def _replay(self, process: int, index: int, history: _History) -> Any:
        """Plays an episode again; returns its latest observation. Raises `EnvironmentFault` or `_Dead`."""
        self._send(process, [(index, "reset", history.seed)])
        observation = self._receive(process)
        for action in history.actions:
            if isinstance(observation, EnvironmentFault):
                raise observation
            self._send(process, [(index, "step", action)])
            answer = self._receive(process)
            observation = answer if isinstance(answer, EnvironmentFault) else answer[0]
        if isinstance(observation, EnvironmentFault):
            raise observation
        return observation

    def _end(self, process: int) -> None:
        running, self._processes[process] = self._processes[process], None
        if running is not None:
            running[0].kill()
            running[0].join()
            running[1].close()

    def close(self) -> None:
        """Kills all processes and closes `example`."""
        for process in range(len(self._processes)):
            self._end(process)
        LocalEnvs([self.example], time_limit=self._limit).close()


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """Blocks the run's signals in this thread, on systems that can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # otherwise a process's start does it, which unblocks the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _RUN_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(
    connection: Connection, name: str, options: dict[str, Any], indices: list[int], parent: int, with_thread: bool
) -> None:
    """What a process runs: makes its environments, then answers each request with a result or a fault."""
    for number in _RUN_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _RUN_SIGNALS)
    if with_thread:
        _die_with_parent()
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()
    try:
        envs = {index: HostEnv(name, **options) for index in indices}
        connection.send(None)
    except ValueError as error:
        connection.send(EnvironmentFault(str(error)))
        return
    while True:
        try:
            requests = connection.recv()
        except EOFError:
            break
        for index, kind, value in requests:
            try:
                answer = envs[index].reset(value) if kind == "reset" else envs[index].step(value)
            except EnvironmentFault as fault:
                answer = fault
            connection.send(answer)
    for env in envs.values():
        env.close()
    sys.exit(0)


def _die_with_parent() -> None:
    """Asks Linux to kill this process when the thread that started it ends, even if it hangs in C."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux: `_exit_with_parent` has to do
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _exit_with_parent(parent: int) -> None:
    """Exits when the run's process is gone, so that a killed run leaves no process behind."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
