"""Answers Ctrl-C at once, while the run itself is still busy with what cannot be interrupted."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 5.0
"""Seconds that a second Ctrl-C waits for the run before the process ends without it."""


@contextmanager
def answered(waits_for: str) -> Iterator[None]:
    """Says on standard error that Ctrl-C or SIGTERM was received, and that the run still `waits_for` something.

    A second one ends the process, with code 130, if the run has not ended `PATIENCE` seconds later. The handlers of the
    signals themselves are left as they are: Python calls them only when the main thread is back from compiled code,
    but writes the number of a signal to a pipe at once, which another thread reads.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    ended = threading.Event()
    thread = threading.Thread(target=_answer, args=(reading, waits_for, ended), daemon=True)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(writing)
        thread.join()
        os.close(reading)


def _answer(reading: int, waits_for: str, ended: threading.Event) -> None:
    """Reads the numbers of signals until the pipe is closed."""
    heard = 0
    while number := os.read(reading, 1):
        if number[0] not in (signal.SIGINT, signal.SIGTERM):
            continue
        heard += 1
        if heard == 1:
            _say(f"the run ends with a checkpoint as soon as {waits_for}; once more ends it at once, without one")
        elif not ended.wait(PATIENCE):
            _say("ended without a checkpoint")
            os._exit(130)


def _say(what: str) -> None:
    print(f"memoroids: {what}", file=sys.stderr, flush=True)
