"""The rules of the house: how large rooms are, how they are called, who may import whom, and where tests stand."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from memoroids.agents.agent_registry import REGISTRY

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "memoroids"
MODULES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(path.relative_to(SOURCE)) for path in MODULES]
ACROSS = {
    "test_action_spaces",
    "test_initialisation",
    "test_models",
    "test_parity",
    "test_pixels",
    "test_reliability",
    "test_replay_fuzz",
    "test_clusters",
    "test_wrong_commands",
}
"""Tests of what several modules of a package do together."""


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_packages_import_in_the_order_of_the_contracts():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_no_module_is_above_350_lines_and_no_function_above_80(path: Path):
    assert len(path.read_text().splitlines()) <= 350
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions(path) if node.end_lineno is not None}
    assert not {name: lines for name, lines in long.items() if lines > 80}


POSIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
"""Modules of the standard library that Windows does not have."""


def test_importing_a_module_needs_nothing_that_windows_lacks():
    for path in MODULES:
        body = ast.parse(path.read_text()).body
        plain = [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
        named = [node.module for node in body if isinstance(node, ast.ImportFrom)]
        assert not POSIX_ONLY & {*plain, *named}, path


def test_no_two_modules_have_one_name():
    counts = Counter(path.stem for path in MODULES if path.stem not in ("__init__", "__main__"))
    assert not {name: count for name, count in counts.items() if count > 1}


def test_tests_stand_where_their_module_does():
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        where = path.relative_to(ROOT / "tests")
        if where.parent == Path():
            continue
        assert (SOURCE / where.parent / "__init__.py").exists(), f"{where}: there is no such package"
        module = where.stem.removeprefix("test_").removesuffix("_fuzz")
        assert where.stem in ACROSS or (SOURCE / where.parent / f"{module}.py").exists(), f"{where}: no such module"


def test_no_two_test_files_have_one_name():
    counts = Counter(path.stem for path in (ROOT / "tests").rglob("*.py") if path.stem != "conftest")
    assert not {name: count for name, count in counts.items() if count > 1}


def compared_names(path: Path) -> list[str]:
    """The names of registered agents that a module compares something with."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        sides = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        for side in sides:
            constants = [each for each in ast.walk(side) if isinstance(each, ast.Constant)]
            found += [each.value for each in constants if each.value in REGISTRY]
    return found


def test_nobody_compares_the_name_of_an_agent():
    compared = {name: compared_names(path) for name, path in zip(NAMES, MODULES, strict=True)}
    outside = {name: found for name, found in compared.items() if found and not name.startswith("agents/")}
    assert outside == {}
