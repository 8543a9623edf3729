"""Files that are either whole or as they were before, whenever the process that writes them ends."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives another name to write to, which becomes `path` at the end. Raises `OSError` naming `path`."""
    partial = path.with_name(f".{path.name}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_whole(path: Path, text: str) -> None:
    """Writes a text file. Raises `OSError` naming it."""
    with whole(path) as partial:
        partial.write_text(text)
