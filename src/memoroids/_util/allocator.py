"""Keeps freed memory for the next array: on Linux, page faults, not arithmetic, dominate the cost of a large array."""

import ctypes
import os
import sys

import jax

SWITCH = "MEMOROIDS_KEEP_MEMORY"

# Numbers of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory(*, overlap: bool = False) -> bool:
    """Makes glibc keep freed memory in this process instead of returning it to the system.

    By default glibc maps new memory for every array above 32 MiB. The system zeroes each page at its first use, which
    takes several times as long as filling the array. Call this before the process runs its first JAX program. From then
    on the process does not shrink; therefore only the commands do this, and importing the package never does. Setting
    the environment variable MEMOROIDS_KEEP_MEMORY=0 leaves the allocator unchanged.

    `overlap`: whether the caller works on while a program runs, which then runs in a thread of its own, where only
    arrays of at most 64 MiB are kept.

    **Returns:** whether the allocator was changed; False if the variable forbids it or the C library is not glibc.
    """
    if os.environ.get(SWITCH) == "0" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # Only the main thread's heap can grow without bound. The heaps of other threads are limited to 64 MiB, and larger
    # arrays are mapped after all. So programs for the CPU have to run in the thread that calls them.
    jax.config.update("jax_cpu_enable_async_dispatch", overlap)
    return all([mallopt(_M_MMAP_THRESHOLD, 2**30), mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)])
