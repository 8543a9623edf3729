"""How a run ends before its budget is used up: interrupted, or by an error, with a checkpoint in either case."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from memoroids.envs import EnvironmentFault
from memoroids.runs.progress import Progress, TrainingError


class WatchFailed(Exception):
    """Raised if the caller's `watch` raises, with that error as its cause."""


def guarded(watch: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """`watch`, whose errors raise `WatchFailed` instead."""

    def call(progress: Progress) -> None:
        try:
            watch(progress)
        except Exception as error:
            raise WatchFailed from error

    return call


@contextmanager
def saved(save: Callable[[], None]) -> Iterator[None]:
    """Calls `save` if an environment, the training or the caller's `watch` ends the run, and raises that error."""
    try:
        yield
    except (EnvironmentFault, TrainingError):
        save()
        raise
    except WatchFailed as failed:
        save()
        assert failed.__cause__ is not None
        raise failed.__cause__ from None


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether Ctrl-C or SIGTERM has been received; a second one acts as usual."""
    raised: list[int] = []  # an Event could deadlock if a signal arrives while the other's handler holds its lock
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: Any, frame: Any) -> None:
        raised.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, handle)
    try:
        yield lambda: bool(raised)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
