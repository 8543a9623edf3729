"""Freed memory kept for the next array: on Linux, what a large array costs most is its pages given back and fetched."""

import ctypes
import os
import sys

import jax

SWITCH = "MEMOROIDS_KEEP_MEMORY"

# Numbers of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Asks glibc to keep freed memory in this process instead of handing it back to the system.

    By default glibc maps every array above 32 MiB afresh, and each of its pages is fetched again and zeroed at its
    first use, which takes several times as long as filling it. To be called before the process runs a JAX program. It
    stays as large as it ever was; that is why a command does this, for itself, and an import never does. The
    environment variable MEMOROIDS_KEEP_MEMORY=0 leaves the allocator as it is.

    **Returns:** whether it was done: not where the switch is off, nor where the C library is not glibc.
    """
    if os.environ.get(SWITCH) == "0" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # Only the main thread's memory can grow without bound; that of another ends at 64 MiB, and what is larger is mapped
    # after all. So programs for the CPU are to be run by the thread that calls them.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return all([mallopt(_M_MMAP_THRESHOLD, 2**30), mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)])
