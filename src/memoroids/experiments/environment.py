"""What a run was made with: versions, commit, machine."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

from memoroids import __version__


def environment() -> dict[str, str]:
    """Versions, machine and commit, for whoever wants to run it again."""
    packages = ("jax", "jaxlib", "equinox", "optax", "numpy", "gymnasium", "popgym", "ale-py", "opencv-python-headless")
    versions = ", ".join(f"{name} {version}" for name in packages if (version := _version(name)))
    import jax

    return {
        "memoroids": f"{__version__}, commit {_commit()}",
        "Python": platform.python_version(),
        "packages": versions,
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
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
