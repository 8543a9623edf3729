"""The documentation site: every page in its navigation, every public name in its reference. MkDocs is not needed."""

import ast
import importlib.util
import re
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import pytest
import yaml

import memoroids

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "memoroids"
REFERENCE = sorted((DOCS / "api").glob("*.md"))
DIRECTIVES = {
    path: page.name for page in REFERENCE for path in re.findall(r"^::: *(\S+)", page.read_text(), re.MULTILINE)
}
"""What the reference describes → its page."""
INSIDE = {"_util", "acting", "benchmarks", "cli", "experiments", "runs", "viewing"}
"""Packages that are no public ones: commands, and what training is made of. Some of their classes are public."""


def entries(navigation: Any) -> list[str]:
    """The pages that a navigation names."""
    if isinstance(navigation, str):
        return [navigation]
    return [
        page for part in (navigation.values() if isinstance(navigation, dict) else navigation) for page in entries(part)
    ]


NAVIGATION = entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])


def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs_hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOKS = hooks()


def described() -> dict[str, Any]:
    """What the reference describes, by path: directives, and what is in the modules that it shows whole."""
    found = {path: resolve_name(path) for path in DIRECTIVES}
    for path, each in list(found.items()):
        if isinstance(each, ModuleType):
            found |= {f"{path}.{name}": value for name, value in vars(each).items() if not name.startswith("_")}
    return found


def reexported(package: Path) -> list[str]:
    """The names that a package offers from its modules, as `from … import X as X`."""
    imports = [node for node in ast.parse(package.read_text()).body if isinstance(node, ast.ImportFrom)]
    return [alias.name for node in imports for alias in node.names if alias.asname == alias.name]


def test_directives_name_what_exists_once():
    named = [path for page in REFERENCE for path in re.findall(r"^:::.*", page.read_text(), re.MULTILINE)]
    assert len(named) == len(set(named)) == len(DIRECTIVES) > 100
    for path in DIRECTIVES:
        assert path == "memoroids.__version__" or resolve_name(path) is not None


def test_the_reference_describes_every_public_name():
    known = described()
    wanted = [f"memoroids.{name}" for name in memoroids.__all__]
    for package in sorted(SOURCE.rglob("__init__.py")):
        path = ".".join(package.parent.relative_to(SOURCE.parent).parts)
        wanted += [f"{path}.{name}" for name in reexported(package)]
    assert len(wanted) > 80

    def is_described(path: str) -> bool:
        name = path.rpartition(".")[2]
        return path in known or any(
            each is resolve_name(path) for other, each in known.items() if other.endswith(f".{name}")
        )

    assert [path for path in wanted if not is_described(path)] == []


def test_every_public_package_has_its_page():
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")} | {"returns", "testing"}
    assert packages - INSIDE <= {path.split(".")[1] for path in DIRECTIVES}
    linked = set(re.findall(r"\]\((\w+\.md)[#)]", (DOCS / "api" / "index.md").read_text()))
    assert linked == {page.name for page in REFERENCE} - {"index.md"}


def test_the_navigation_has_every_page_once_and_no_other():
    pages = [path for path in DOCS.rglob("*") if path.suffix in (".md", ".ipynb")]
    outside = [HOOKS.place(path) for path in HOOKS.ALWAYS]
    assert sorted(NAVIGATION) == sorted([*map(HOOKS.place, pages), *outside])
    for entry in NAVIGATION:
        assert HOOKS.source(entry).is_file()


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: page.stem)
def test_links_of_the_reference_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#:]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_links_out_of_the_pages_lead_to_their_copies():
    page = DOCS / "results.md"
    links = (
        "![a](../results/quickstart.png) [b](../examples/act.py) [c](../results/figure3) [d](time.md#x) [e](nowhere.md)"
    )
    assert HOOKS.with_links_of_the_site(links, page) == (
        "![a](repository/results/quickstart.png) [b](repository/examples/act.py.md) "
        "[c](repository/results/figure3/index.md) [d](time.md#x) [e](nowhere.md)"
    )
    assert HOOKS.with_links_of_the_site("[a](docs/time.md#x)", ROOT / "CONTRIBUTING.md") == "[a](../time.md#x)"
    assert HOOKS.with_links_of_the_site("[a](first_steps.ipynb)", page) == "[a](first_steps.md)"


def test_a_place_of_the_site_names_its_source():
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    found = {target for page in pages for target in HOOKS.targets(page.read_text(), page)}
    assert len(found) > 50
    for path in found:
        assert HOOKS.source(HOOKS.place(path)) == path
        assert path.suffix in HOOKS.COPIED or HOOKS.text(path).strip()


def test_a_notebook_becomes_a_page_with_what_it_printed():
    page = HOOKS.text(DOCS / "first_steps.ipynb")
    assert page.startswith("# First steps") and "```python\nimport memoroids" in page and "```text\n" in page
    assert set(re.findall(r"!\[\]\((.*)\)", page)) <= {name for name, _ in HOOKS._images(DOCS / "first_steps.ipynb")}
