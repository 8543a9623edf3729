"""Checks what is in wheels and sdists of memoroids: `python .ci/contents.py FILE …`; exits 1 if something is wrong."""

import re
import sys
import tarfile
import zipfile
from pathlib import Path

LARGEST = 2_000_000
"""Bytes of the largest file that is released: much more means that something entered which does not belong there."""
NOWHERE = r"^(results|runs|dist|build|site)/|(^|/)(__pycache__|\.git|\.venv|\.\w+_cache)/|\.pyc$"
KERNELS = "memoroids/algebra/kernels"


def needed(name: str) -> list[str]:
    """Files without which a wheel or an sdist of this name is not whole."""
    if name.endswith(".tar.gz"):
        files = ["LICENSE", "README.md", "CITATION.cff", "PKG-INFO", "pyproject.toml", "hatch_build.py"]
        return [*files, "src/memoroids/py.typed", f"src/{KERNELS}/recurrence.cpp", "tests/conftest.py"]
    files = ["licenses/LICENSE", "METADATA", "entry_points.txt", "memoroids/__init__.py", "memoroids/py.typed"]
    if not name.endswith("-any.whl"):
        files.append(f"{KERNELS}/_recurrence.so")
    if "x86_64" in name:
        files.append(f"{KERNELS}/_recurrence_avx2.so")
    return files


def faults(name: str, files: list[str]) -> list[str]:
    """What is wrong with the list of files of a wheel or an sdist, a line each."""
    found = [f"it lacks {each}" for each in needed(name) if not any(f"/{file}".endswith(f"/{each}") for file in files)]
    for file in files:
        foreign = name.endswith(".whl") and not re.match(r"memoroids(-[^/]+\.dist-info)?/", file)
        compiled = name.endswith(".tar.gz") and file.endswith((".so", ".dylib"))
        if foreign or compiled or re.search(NOWHERE, file):
            found.append(f"{file} does not belong there")
    return found


def listed(path: Path) -> list[str]:
    """The names of the files of a wheel or an sdist; those of an sdist without its folder."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    with tarfile.open(path) as archive:
        return [each.name.partition("/")[2] for each in archive.getmembers() if each.isfile()]


def main(paths: list[str]) -> int:
    """Prints size and faults of each file; returns the exit status."""
    wrong = False
    for path in map(Path, paths):
        files = listed(path)
        found = faults(path.name, files)
        if path.stat().st_size > LARGEST:
            found.append(f"it has more than {LARGEST:,} bytes")
        print(f"{path.name}: {len(files)} files, {path.stat().st_size:,} bytes", *found, sep="\n  ")
        wrong = wrong or bool(found)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
