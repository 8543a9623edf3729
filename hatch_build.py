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
# AVX2 and FMA, as every x86 server and desktop processor since 2015 has them; the library says so before it is used.
ARCHITECTURE = {"x86_64": ["-march=x86-64-v3"], "AMD64": ["-march=x86-64-v3"]}


class KernelBuildHook(BuildHookInterface):
    """Adds the compiled library to the wheel, or to the source folder of an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles the kernel and adds it to what is built; a failure is a warning."""
        try:
            library = self._compile()
        except (OSError, ImportError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or error
            self.app.display_warning(f"memoroids: installed without the native kernel: {said}")
            return
        build_data["artifacts"].append(library.as_posix())
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def _compile(self) -> Path:
        import jaxlib

        compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
        if compiler is None:
            raise OSError("no C++ compiler found (g++, clang++, or the one that CXX names)")
        folder = Path(self.root) / FOLDER
        library = folder / "_recurrence.so"
        library.unlink(missing_ok=True)
        headers = Path(jaxlib.__file__).parent / "include"
        command = [
            *compiler.split(),
            "-std=c++17",
            "-O3",
            "-fPIC",
            "-shared",
            *ARCHITECTURE.get(platform.machine(), []),
        ]
        command += ["-isystem", str(headers), str(folder / "recurrence.cpp"), "-o", str(library), "-pthread"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return library.relative_to(self.root)
