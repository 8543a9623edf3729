"""Compiles the C++ kernel when the package is built or installed; without a compiler the package works without it."""

import os
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src/memoroids/algebra/kernels")
X86 = ("x86_64", "AMD64")


def libraries(machine: str) -> dict[str, list[str]]:
    """The libraries for a kind of machine and their flags; the first, which runs on all of the kind, is needed."""
    if machine not in X86:
        return {"_recurrence.so": []}
    # Not more than the kernel asks the processor for before it loads the second library.
    return {"_recurrence.so": ["-march=x86-64"], "_recurrence_avx2.so": ["-march=x86-64", "-mavx2", "-mfma"]}


def platform_tag(system: str, machine: str) -> str:
    """The wheel's tag of a platform, from sysconfig's name for it; libraries are compiled for one processor only."""
    tag = system.replace("-", "_").replace(".", "_")
    if not tag.endswith("_universal2"):
        return tag
    # macOS 11 is the first on arm64.
    return "macosx_11_0_arm64" if machine == "arm64" else tag.replace("universal2", machine)


class KernelBuildHook(BuildHookInterface):
    """Adds the compiled libraries to the wheel, or to the source folder of an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles the kernel and adds it to what is built; a failure is a warning."""
        for old in (Path(self.root) / FOLDER).glob("_recurrence*.so"):
            old.unlink()
        for i, (name, flags) in enumerate(libraries(platform.machine()).items()):
            try:
                library = self._compile(name, flags)
            except (OSError, ImportError, subprocess.CalledProcessError) as error:
                said = getattr(error, "stderr", None) or error
                lacking = f"{name}, for newer processors" if i else "the native kernel"
                self.app.display_warning(f"memoroids: installed without {lacking}: {said}")
                return
            build_data["artifacts"].append(library.as_posix())
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform_tag(sysconfig.get_platform(), platform.machine())}"

    def _compile(self, name: str, flags: list[str]) -> Path:
        import jaxlib

        compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
        if compiler is None:
            raise OSError("no C++ compiler found (g++, clang++, or the one that CXX names)")
        folder = Path(self.root) / FOLDER
        headers = Path(jaxlib.__file__).parent / "include"
        command = [*compiler.split(), "-std=c++17", "-O3", "-fPIC", "-shared", *flags]
        command += ["-isystem", str(headers), str(folder / "recurrence.cpp"), "-o", str(folder / name), "-pthread"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return FOLDER / name
