"""Locks, so that one process at a time writes to a directory."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout


class Held(Exception):
    """Raised if another process holds a lock; the message is who holds it."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, which names this process; it is left in place.

    The system releases the lock when the process ends, even if it is killed. Raises `Held` if another process holds it,
    and `OSError` if the file cannot be written or its file system has no locks.
    """
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise Held(_holder(path)) from None
    try:
        with contextlib.suppress(PermissionError):  # Windows lets nobody write to a locked file
            path.write_text(f"process {os.getpid()}, started {datetime.now().isoformat(timespec='seconds')}\n")
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip() or "another process"
    return "another process"
