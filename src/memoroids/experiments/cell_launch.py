"""Starts the process of cells, on this machine or as a job of a cluster; imports nothing but the standard library."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LOG = "log.txt"
GRACE_SECONDS = 60.0
"""How long a cell that has to leave a node may take to write a checkpoint."""

# Every child runs this before it imports anything: the cores must be set before JAX counts them, and the child must
# watch its parent from the start, so that no cell outlives a grid or a job that is killed.
_PREAMBLE = """
import os, threading, time

def end_with(parent):
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)

try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)  # on Linux the kernel kills it, even if it hangs in C code
except (ImportError, OSError, AttributeError):
    pass
threading.Thread(target=end_with, args=({parent},), daemon=True).start()
if {cores} and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {cores})
"""
CELL_PROGRAM = """
import runpy
runpy.run_module("memoroids.experiments.cell", run_name="__main__", alter_sys=True)
"""
"""The Python program of a process that runs cells; its arguments are their directories."""


def launch(
    directories: Sequence[str], cache: str, cores: Sequence[int] = (), *, program: str | None = None
) -> subprocess.Popen[bytes]:
    """Starts the process that runs the cells in `directories`, which ends with this one.

    `cache`: the directory of compiled programs, to which no other process writes. `cores`: those that it may use, all
    if there are none. `program`: another one than `CELL_PROGRAM`. What it prints goes to the log of the first cell.
    """
    # Cells that differ only in their seed compile to the same program.
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # processes may share an accelerator
    text = _PREAMBLE.format(parent=os.getpid(), cores=list(cores)) + (program or CELL_PROGRAM)
    with (Path(directories[0]) / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", text, *directories],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the grid only, which then ends its cells
        )


class ClusterJob:
    """What a job of a cluster does: runs cells to their end. Returns the exit status of their process.

    If the job has to leave its node, which submitit announces by calling `checkpoint`, the cells write one and go on
    from it when the job is started again.
    """

    def __init__(self, directories: Sequence[str], cache: str, program: str):
        self.directories, self.cache, self.program = directories, cache, program
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Runs the cells."""
        self._process = launch(self.directories, self.cache, program=self.program)
        # Not by waiting for it: `checkpoint` is called amid this loop, by a signal, and has to wait for it itself.
        while (code := self._process.poll()) is None:
            time.sleep(0.2)
        return code

    def checkpoint(self) -> Any:
        """Ends the cells with a checkpoint; returns what is to be submitted in their place."""
        import submitit  # pyright: ignore[reportMissingImports]: an extra

        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return submitit.helpers.DelayedSubmission(ClusterJob(self.directories, self.cache, self.program))


def cores_of(slot: int, jobs: int) -> list[int]:
    """The processor cores of a slot, equally many for each; empty (no restriction) with fewer cores than jobs."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // jobs
    return cores[slot * share : (slot + 1) * share]
