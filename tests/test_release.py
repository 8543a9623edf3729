"""What is released: metadata, workflows and scripts agree with each other, and what may not enter a wheel is found."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from memoroids import __version__
from memoroids.algebra.kernels import native

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
METADATA = PROJECT["project"]
EXTRAS = METADATA["optional-dependencies"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"released_{Path(path).stem}", ROOT / path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def pythons(workflow: str, job: str) -> set[str]:
    return set(
        yaml.safe_load((ROOT / ".github/workflows" / workflow).read_text())["jobs"][job]["strategy"]["matrix"]["python"]
    )


def test_the_classifiers_are_the_versions_of_python_that_are_required_and_tested():
    first, last = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", METADATA["requires-python"]).groups()
    required = {f"3.{minor}" for minor in range(int(first), int(last))}
    classified = {name.rpartition(" ")[2] for name in METADATA["classifiers"] if re.search(r":: 3\.\d+$", name)}
    assert required == classified == pythons("ci.yml", "tests") == pythons("release.yml", "try")


def test_the_citation_does_not_go_stale():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.get("version", __version__) == __version__
    assert citation["license"] == METADATA["license"]
    assert [each["name"] for each in citation["authors"]] == [each["name"] for each in METADATA["authors"]]
    assert citation["repository-code"] == METADATA["urls"]["Homepage"]
    paper = citation["preferred-citation"]
    readme = (ROOT / "README.md").read_text()
    names = " and ".join(f"{each['family-names']}, {each['given-names']}" for each in paper["authors"])
    assert f"author = {{{names}}}" in readme and f"title = {{{paper['title']}}}" in readme
    assert paper["url"] == METADATA["urls"]["Paper"] and paper["url"] in readme


def test_links_of_the_readme_are_absolute_where_there_are_no_files_beside_it():
    text = (ROOT / "README.md").read_text()
    for rule in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        assert METADATA["urls"]["Homepage"].partition("github.com/")[2] in rule["replacement"]
        text = re.sub(rule["pattern"], rule["replacement"], text)
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets and all(target.startswith("https://") for target in targets)
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert images and all("raw.githubusercontent.com" in image for image in images)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_scripts_that_exist(path: Path):
    workflow = yaml.safe_load(path.read_text())
    assert {"name", "jobs", "permissions"} <= set(workflow)
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    scripts = set(re.findall(r"\.ci/\w+(?:\.py)?", "\n".join(commands)))
    assert scripts
    for script in scripts:
        assert (ROOT / script).exists(), script
        assert script.endswith(".py") or (ROOT / script).stat().st_mode & 0o100, f"{script} cannot be executed"
    assert all(("run" in step) != ("uses" in step) for step in steps(workflow))
    for job in workflow["jobs"].values():
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= set(workflow["jobs"])


def test_a_release_is_published_by_a_tag_and_without_secrets():
    text = (ROOT / ".github/workflows/release.yml").read_text()
    release = yaml.safe_load(text)
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML takes the key `on` as true
    publish = release["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"} and publish["environment"]["name"] == "pypi"
    assert set(publish["needs"]) == {"sdist", "try"} and release["jobs"]["try"]["needs"] == "wheels"
    assert "secrets." not in text and "password" not in text


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_of_an_issue_is_whole(path: Path):
    form = yaml.safe_load(path.read_text())
    assert form["name"] and form["description"]
    identities = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(identities) == len(set(identities)) >= 3


@pytest.mark.parametrize("path", sorted((ROOT / ".ci").glob("[!.]*")), ids=lambda path: path.name)
def test_a_script_can_be_parsed(path: Path):
    if path.suffix == ".py":
        ast.parse(path.read_text())
    elif path.is_file():
        done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_tag_has_to_be_the_version():
    done = subprocess.run([ROOT / ".ci/tag", "v0.0.0"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"the tag is v0.0.0, but the version is {__version__}\n"


def test_the_extras_that_documents_name_exist():
    named = set()
    for path in DOCUMENTS:
        named |= {
            name for extra in re.findall(r"(?:memoroids|\.)\[([\w,]+)\]", path.read_text()) for name in extra.split(",")
        }
    assert {"test", "cuda", "onnx"} <= named <= set(EXTRAS)


def test_extras_do_not_ask_for_two_ranges_of_one_package():
    ranges: dict[str, set[str]] = {}
    for requirement in [*METADATA["dependencies"], *(each for extra in EXTRAS.values() for each in extra)]:
        name, limits = re.fullmatch(r"([\w-]+(?:\[\w+\])?)(.*)", requirement).groups()
        ranges.setdefault(name, set()).add(limits)
    assert not {name: limits for name, limits in ranges.items() if len(limits) > 1}


@pytest.mark.parametrize(
    ("system", "machine", "tag"),
    [
        ("linux-x86_64", "x86_64", "linux_x86_64"),
        ("linux-aarch64", "aarch64", "linux_aarch64"),
        ("macosx-11.0-arm64", "arm64", "macosx_11_0_arm64"),
        ("macosx-10.9-universal2", "arm64", "macosx_11_0_arm64"),
        ("macosx-10.9-universal2", "x86_64", "macosx_10_9_x86_64"),
    ],
)
def test_a_wheel_is_tagged_for_the_processor_that_its_libraries_are_compiled_for(system, machine, tag, monkeypatch):
    interface = ModuleType(
        "hatchling.builders.hooks.plugin.interface"
    )  # hatchling is there only while something is built
    monkeypatch.setattr(interface, "BuildHookInterface", object, raising=False)
    parts = interface.__name__.split(".")
    for length in range(1, len(parts)):
        name = ".".join(parts[:length])
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    assert module("hatch_build.py").platform_tag(system, machine) == tag


WHEEL = [
    "memoroids/__init__.py",
    "memoroids/py.typed",
    "memoroids/runs/train.py",
    *(f"memoroids/algebra/kernels/{path.name}" for path in (native.PORTABLE, native.AVX2)),
    *(f"memoroids-1.0.dist-info/{name}" for name in ("METADATA", "entry_points.txt", "licenses/LICENSE")),
]
SDIST = ["LICENSE", "README.md", "CITATION.cff", "PKG-INFO", "pyproject.toml", "hatch_build.py", "tests/conftest.py"]
SDIST += ["src/memoroids/py.typed", "src/memoroids/algebra/kernels/recurrence.cpp", "tests/runs/test_train.py"]


@pytest.mark.parametrize(
    ("name", "files", "without", "extra", "said"),
    [
        ("memoroids-1.0-py3-none-linux_x86_64.whl", WHEEL, None, None, None),
        ("memoroids-1.0-py3-none-linux_x86_64.whl", WHEEL, native.AVX2.name, None, "it lacks memoroids/algebra"),
        ("memoroids-1.0-py3-none-macosx_11_0_arm64.whl", WHEEL, native.AVX2.name, None, None),
        (
            "memoroids-1.0-py3-none-macosx_11_0_arm64.whl",
            WHEEL,
            native.PORTABLE.name,
            None,
            "it lacks memoroids/algebra",
        ),
        ("memoroids-1.0-py3-none-any.whl", WHEEL, "LICENSE", None, "it lacks licenses/LICENSE"),
        ("memoroids-1.0-py3-none-any.whl", WHEEL, None, "tests/conftest.py", "tests/conftest.py does not belong there"),
        (
            "memoroids-1.0-py3-none-any.whl",
            WHEEL,
            None,
            "memoroids/__pycache__/a.pyc",
            "memoroids/__pycache__/a.pyc does",
        ),
        ("memoroids-1.0.tar.gz", SDIST, None, None, None),
        ("memoroids-1.0.tar.gz", SDIST, "recurrence.cpp", None, "it lacks src/memoroids/algebra"),
        ("memoroids-1.0.tar.gz", SDIST, None, "results/quickstart.png", "results/quickstart.png does not belong there"),
        ("memoroids-1.0.tar.gz", SDIST, None, "src/memoroids/a.so", "src/memoroids/a.so does not belong there"),
    ],
)
def test_what_lacks_or_does_not_belong_in_a_released_file_is_found(name, files, without, extra, said):
    files = [file for file in files if without is None or not file.endswith(f"/{without}")] + [extra] * bool(extra)
    found = module(".ci/contents.py").faults(name, files)
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith(said)
