"""What a run was produced with: versions, commit and machine."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

from memoroids._version import __version__


def environment() -> dict[str, str]:
    """Versions, machine and commit, as needed to reproduce a run."""
    found = conditions()
    return found | {"memoroids": f"{found['memoroids']}, commit {_commit()}"}


@functools.cache
def conditions() -> dict[str, str]:
    """What has to be equal for two runs to agree bit for bit: versions, machine, usable cores and devices."""
    packages = ("jax", "jaxlib", "equinox", "optax", "numpy", "gymnasium", "popgym", "ale-py", "opencv-python-headless")
    versions = ", ".join(f"{name} {version}" for name in packages if (version := _version(name)))
    import jax

    # XLA divides work among the cores that the process may use, not among all cores of the machine.
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
        return None  # an optional package that is not installed


def _commit() -> str:
    """The commit of the running source, or "unknown" if it is not a git checkout."""
    where = Path(__file__).parent
    # An installed package may lie inside the checkout of another project, which does not track its files.
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
