"""Keeps compiled programs on disk: compilation takes most of the time of a short run."""

import hashlib
import os
import platform
import sys
import zlib
from pathlib import Path

import jax
from filelock import FileLock

from memoroids._version import __version__

SWITCH = "MEMOROIDS_COMPILE_CACHE"
MOST_BYTES = 2**28


def keep_compiled_programs() -> Path | None:
    """Makes this process read compiled programs from the user's cache directory, and add those that it lacks.

    The directory, below `$XDG_CACHE_HOME` or `~/.cache`, belongs to one version of the package and one processor; the
    programs used longest ago are deleted beyond `MOST_BYTES`. Call this before the process compiles its first program.
    Only the commands do this; importing the package never does. Setting the environment variable
    MEMOROIDS_COMPILE_CACHE=0 turns it off, and JAX_COMPILATION_CACHE_DIR names another directory, which is left to JAX.

    **Returns:** the directory; None if it is turned off, another one is set, or it cannot be written.
    """
    if os.environ.get(SWITCH) == "0" or getattr(jax.config, "jax_compilation_cache_dir", None):
        return None
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        directory = Path(home) / "memoroids" / f"{__version__}-{_processor()}"
        # Whoever can write there can make this process run anything.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _drop_unfinished(directory)
    except (OSError, RuntimeError):  # a directory that cannot be written, a user without a home
        return None
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
    # JAX looks at every program whenever it adds one, so there should not be too many.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return directory


def _drop_unfinished(directory: Path) -> None:
    """Deletes programs that a process was writing when it was killed, which JAX would fail to read for ever after."""
    checked = directory / ".checked"
    with FileLock(directory / ".lockfile", timeout=10):  # the lock that JAX takes to read and to write
        since = checked.stat().st_mtime if checked.exists() else 0.0
        for program in directory.glob("*-cache"):
            if program.stat().st_mtime >= since and not _whole(program.read_bytes()):
                program.unlink()
        checked.touch()


def _whole(program: bytes) -> bool:
    """Whether a compressed program has an end, as far as can be told: True for other compressions than zlib's."""
    if program[:1] not in (b"", b"x"):  # the first byte of zlib's
        return True
    decompressed = zlib.decompressobj()
    try:
        decompressed.decompress(program)
    except zlib.error:
        return False
    return decompressed.eof


def _processor() -> str:
    """A short name of the processor's instruction set: programs compiled for one may not run on another."""
    found = platform.machine() + platform.processor()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found += "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return hashlib.sha256(found.encode()).hexdigest()[:12]
