"""Files that are either whole or as they were before, whenever the process that writes them ends."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives another name to write to, which becomes `path` at the end. Raises `OSError` naming `path`."""
    partial = path.with_name(f".{path.name}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        # Some libraries raise it with nothing but a text.
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def atomic_write_text(path: Path, text: str) -> None:
    """Writes a text file. Raises `OSError` naming it."""
    with atomic_write(path) as partial:
        partial.write_text(text)
