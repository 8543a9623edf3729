"""Atomic writes: a file is either complete or unchanged, even if the process that writes it is killed."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, which replaces `path` at the end. Raises `OSError` naming `path`."""
    partial = path.with_name(f".{path.name}")
    try:
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        # Some libraries raise it with a message only, without an error number.
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def atomic_write_text(path: Path, text: str) -> None:
    """Writes a text file atomically. Raises `OSError` naming it."""
    with atomic_write(path) as partial:
        partial.write_text(text)
