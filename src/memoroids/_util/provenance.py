"""What a run was made with: versions, commit, machine."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

from memoroids._version import __version__


def environment() -> dict[str, str]:
    """Versions, machine and commit, for whoever wants to run it again."""
    found = conditions()
    return found | {"memoroids": f"{found['memoroids']}, commit {_commit()}"}


@functools.cache
def conditions() -> dict[str, str]:
    """What has to be the same for a run to be the same bit for bit: versions, machine, cores to run on, devices."""
    packages = ("jax", "jaxlib", "equinox", "optax", "numpy", "gymnasium", "popgym", "ale-py", "opencv-python-headless")
    versions = ", ".join(f"{name} {version}" for name in packages if (version := _version(name)))
    import jax

    # XLA divides work over the cores that the process may use, not over those that there are.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "memoroids": __version__,
        "Python": platform.python_version(),
        "packages": versions,
        "machine": f"{_processor()}, {cores} cores, {platform.system()} {platform.machine()}",
        "JAX runs on": ", ".join(sorted({device.device_kind for device in jax.devices()})),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # of an extra


def _commit() -> str:
    """The commit of the source this runs from; "unknown" where it is not a checkout."""
    where = Path(__file__).parent
    # An installed package may lie in a checkout of something else, which does not track it.
    tracked = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        for command in (tracked, describe):
            done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
