"""The package's face: public names that are loaded when asked for, and that no module of the package asks for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import memoroids

PUBLIC = (
    "Memoroid",
    "Memory",
    "Monoid",
    "Resettable",
    "Stack",
    "Tape",
    "__version__",
    "check_memory",
    "check_monoid",
    "in_chunks",
    "linear_recurrence",
    "load",
    "scan",
    "train",
)
ROOT = Path(memoroids.__file__).parent


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_loads_no_library():
    loaded = run("import memoroids, sys; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert "memoroids" in loaded
    assert not {"jax", "jaxlib", "numpy", "gymnasium", "equinox"} & set(loaded)


def test_the_public_names_are_written_down_once_for_every_reader():
    assert sorted(memoroids.__all__) == sorted(PUBLIC) == sorted(["__version__", *memoroids._MODULES])
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = {name.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert imports == memoroids._MODULES


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_resolves_and_is_listed(name: str):
    assert name in dir(memoroids)
    found = getattr(memoroids, name)
    assert getattr(memoroids, name) is found
    if name != "__version__":
        assert found is getattr(importlib.import_module(memoroids._MODULES[name]), name)
        assert found.__module__.startswith("memoroids.")


def test_names_are_listed_before_they_are_loaded_and_all_are_imported_by_a_star():
    listed = run("import memoroids, sys; print(*dir(memoroids)); assert 'jax' not in sys.modules").split()
    assert set(PUBLIC) <= set(listed)
    assert set(PUBLIC) <= set(run("from memoroids import *; print(*globals())").split())


def test_an_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="module 'memoroids' has no attribute 'LRUU'"):
        _ = memoroids.LRUU  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ImportError, match="cannot import name 'LRUU' from 'memoroids'"):
        exec("from memoroids import LRUU")
    assert not hasattr(memoroids, "LRUU")


def asks_the_face(node: ast.AST) -> bool:
    """Whether a statement imports the package itself, or a name from it that is not a module."""
    if isinstance(node, ast.Import):
        return any(alias.name == "memoroids" for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.module == "memoroids":
        return not all((ROOT / alias.name).is_dir() or (ROOT / f"{alias.name}.py").exists() for alias in node.names)
    return False


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_of_the_package_imports_its_face(path: Path):
    asking = [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if asks_the_face(node)]
    assert not asking
