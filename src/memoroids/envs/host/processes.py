"""Copies of a host environment in processes of their own: they step side by side, and may die or hang."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from memoroids.envs.faults import EnvironmentFault
from memoroids.envs.host.env import HostEnv
from memoroids.envs.host.vector import LocalEnvs, Stepped, late

_FOR_THE_RUN = (signal.SIGINT, signal.SIGTERM)
"""Signals that a whole group of processes gets: the run takes them, and ends its workers itself."""

START_LIMIT = 120.0
"""Seconds that a process may take to start and to make its environments."""


@dataclass
class _History:
    """What makes an episode again: its seed and its actions; and what was seen last, to tell whether it did."""

    seed: int
    shown: np.ndarray
    actions: list[Any] = field(default_factory=list)


class _Dead(Exception):
    """A process that ended or did not answer; `fault` says which."""

    def __init__(self, fault: EnvironmentFault):
        super().__init__(str(fault))
        self.fault = fault


class ProcessEnvs:
    """`num_envs` of `HostEnv(name, **options)`, divided over `processes` that start with the first episode.

    What comes out does not depend on their number. A process that dies or takes longer than `time_limit` seconds for an
    answer is started again: the episode at fault is lost, the others that it held are played again from their seeds and
    actions, and are lost too where they do not show the same again.
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

    def reset(self, copy: int, seed: int) -> np.ndarray:
        self._lost.pop(copy, None)
        self._history.pop(copy, None)
        worker = copy % len(self._processes)
        try:
            self._send(worker, [(copy, "reset", seed)])
            shown = self._receive(worker)
        except _Dead as dead:
            self._restart(worker)
            raise EnvironmentFault(f"{dead.fault} at reset (seed {seed})") from None
        if isinstance(shown, EnvironmentFault):
            raise shown
        self._history[copy] = _History(seed, shown)
        return shown

    def step(self, actions: Mapping[int, Any]) -> dict[int, Stepped | EnvironmentFault]:
        results: dict[int, Stepped | EnvironmentFault] = {}
        waiting: dict[int, list[int]] = {}
        for copy in actions:
            if copy in self._lost:
                results[copy] = self._lost.pop(copy)
            else:
                waiting.setdefault(copy % len(self._processes), []).append(copy)
        asked = {worker for worker, copies in waiting.items() if self._ask(worker, copies, actions)}
        for worker, copies in waiting.items():
            while copies:
                copy = copies.pop(0)
                try:
                    if worker not in asked:
                        raise _Dead(self._died(worker))
                    results[copy] = self._stepped(copy, actions[copy], self._receive(worker))
                except _Dead as dead:
                    step = len(self._history.pop(copy).actions) + 1
                    results[copy] = EnvironmentFault(f"{dead.fault} at step {step}")
                    self._restart(worker)
                    results |= {other: self._lost.pop(other) for other in copies if other in self._lost}
                    copies[:] = [other for other in copies if other not in results]
                    asked -= {worker}
                    if copies and self._ask(worker, copies, actions):
                        asked |= {worker}
        return results

    def _ask(self, worker: int, copies: list[int], actions: Mapping[int, Any]) -> bool:
        """Sends a worker its actions in one message, since many could fill the pipe; whether it took them."""
        try:
            self._send(worker, [(copy, "step", actions[copy]) for copy in copies])
        except _Dead:
            return False
        return True

    def _stepped(self, copy: int, action: Any, answer: Any) -> Stepped | EnvironmentFault:
        if isinstance(answer, EnvironmentFault):
            self._history.pop(copy)
            return answer
        stepped = Stepped(*answer)
        if stepped.terminated or stepped.truncated:
            self._history.pop(copy)
        else:
            self._history[copy].actions.append(action)
            self._history[copy].shown = stepped.observation
        return stepped

    def _start(self, worker: int) -> tuple[Any, Connection]:
        # Spawned: a process forked after JAX has started its threads may hang.
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        mine = range(worker, self._num_envs, len(self._processes))
        main = threading.current_thread() is threading.main_thread()
        work = (there, *self._made_with, list(mine), os.getpid(), main)
        process = context.Process(target=_work, args=work, daemon=True)
        resource_tracker.ensure_running()  # which `start` would do, and then take signals again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_RUN)
        try:
            process.start()  # deaf to them from its first moment on
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()
        self._processes[worker] = process, here
        try:
            fault = self._receive(worker, START_LIMIT)
        except _Dead as dead:
            fault = dead.fault
        if fault is not None:
            self._end(worker)  # what it may still answer is no answer to what it is asked next
            raise EnvironmentFault(f"cannot start a worker process: {fault}")
        return process, here

    def _send(self, worker: int, requests: list[tuple[int, str, Any]]) -> None:
        _, connection = self._processes[worker] or self._start(worker)
        try:
            connection.send(requests)
        except OSError:
            raise _Dead(self._died(worker)) from None

    def _receive(self, worker: int, limit: float | None = None) -> Any:
        running = self._processes[worker]
        assert running is not None
        limit = limit or self._limit
        try:
            if not running[1].poll(limit):
                raise _Dead(late(self.example.id, limit))
            return running[1].recv()
        except (EOFError, OSError):
            raise _Dead(self._died(worker)) from None

    def _died(self, worker: int) -> EnvironmentFault:
        running = self._processes[worker]
        assert running is not None
        running[0].join(1.0)
        return EnvironmentFault(f"{self.example.id}: its process ended with exit status {running[0].exitcode}")

    def _restart(self, worker: int) -> None:
        """Starts a process anew and plays its open episodes again; one that ends it once more is lost as well."""
        self._end(worker)
        for copy in range(worker, self._num_envs, len(self._processes)):
            history = self._history.get(copy)
            if history is None:
                continue
            try:
                if np.array_equal(self._again(worker, copy, history), history.shown):
                    continue
                self._lose(copy, EnvironmentFault(f"{self.example.id} did not show the same when it was played again"))
            except EnvironmentFault as fault:
                self._lose(copy, fault)
            except _Dead as dead:
                self._lose(copy, dead.fault)
                return self._restart(worker)

    def _lose(self, copy: int, fault: EnvironmentFault) -> None:
        self._history.pop(copy)
        self._lost[copy] = EnvironmentFault(f"{fault}, after the process that it shared had to be started again")

    def _again(self, worker: int, copy: int, history: _History) -> Any:
        self._send(worker, [(copy, "reset", history.seed)])
        shown = self._receive(worker)
        for action in history.actions:
            if isinstance(shown, EnvironmentFault):
                raise shown
            self._send(worker, [(copy, "step", action)])
            answer = self._receive(worker)
            shown = answer if isinstance(answer, EnvironmentFault) else answer[0]
        if isinstance(shown, EnvironmentFault):
            raise shown
        return shown

    def _end(self, worker: int) -> None:
        running, self._processes[worker] = self._processes[worker], None
        if running is not None:
            running[0].kill()
            running[0].join()
            running[1].close()

    def close(self) -> None:
        for worker in range(len(self._processes)):
            self._end(worker)
        LocalEnvs([self.example], time_limit=self._limit).close()


def _work(
    connection: Connection, name: str, options: dict[str, Any], copies: list[int], parent: int, with_thread: bool
) -> None:
    """A worker's whole life: makes its copies, then answers each request with a result or a fault."""
    for number in _FOR_THE_RUN:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_RUN)
    if with_thread:
        _die_with_parent()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        envs = {copy: HostEnv(name, **options) for copy in copies}
        connection.send(None)
    except ValueError as error:
        connection.send(EnvironmentFault(str(error)))
        return
    while True:
        try:
            requests = connection.recv()
        except EOFError:
            break
        for copy, kind, value in requests:
            try:
                answer = envs[copy].reset(value) if kind == "reset" else envs[copy].step(value)
            except EnvironmentFault as fault:
                answer = fault
            connection.send(answer)
    for env in envs.values():
        env.close()
    sys.exit(0)


def _die_with_parent() -> None:
    """Has Linux kill this process with the thread that started it, even where it hangs in C."""
    with contextlib.suppress(OSError, AttributeError):  # another system: the thread below has to do
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _end_with(parent: int) -> None:
    """A run that is killed leaves no worker behind."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
