"""Memory models by name: those of the registry, and factories of the user."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memoroids.memory.registry import REGISTRY, resolve_memory


@pytest.mark.parametrize("name", REGISTRY)
def test_memories_of_the_registry_are_found_by_name(name: str):
    assert resolve_memory(name) is REGISTRY[name]


@pytest.mark.parametrize(
    ("name", "nearest"), [("lruu", "lru"), ("FFM", "ffm"), ("linear-transformer", "linear_transf")]
)
def test_an_unknown_memory_is_answered_with_the_nearest(name: str, nearest: str):
    with pytest.raises(ValueError, match=f"unknown memory '{name}'; did you mean {nearest}"):
        resolve_memory(name)


def test_a_memory_like_no_other_is_answered_with_all():
    with pytest.raises(ValueError) as error:
        resolve_memory("qqq")
    assert all(name in str(error.value) for name in REGISTRY)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of an installed command, which is not on Python's path."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("workplace_"):
            del sys.modules[name]


def test_a_factory_of_the_users_own_is_found_next_to_where_the_command_is_run(workplace: Path):
    (workplace / "workplace_package").mkdir()
    (workplace / "workplace_package" / "__init__.py").touch()
    (workplace / "workplace_package" / "models.py").write_text(
        "def build(input_size, output_size, *, key): return 42\n"
    )
    factory: Any = resolve_memory("workplace_package.models:build")
    assert factory(1, 2, key=None) == 42


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("workplace_missing:build", None, "No module named 'workplace_missing'"),
        ("workplace_broken:build", "def build(:\n", "cannot import workplace_broken"),
        ("workplace_raises:build", "raise RuntimeError('first\\nsecond')\n", "first second"),
        ("workplace_empty:build", "", "no callable 'build'"),
        ("workplace_number:build", "build = 3\n", "no callable 'build'"),
        ("workplace_nameless:", "build = print\n", "no callable ''"),
        (":build", None, "cannot import"),
    ],
)
def test_a_factory_that_cannot_be_had_is_answered_in_one_line(name: str, text: str | None, word: str, workplace: Path):
    if text is not None:
        (workplace / f"{name.partition(':')[0]}.py").write_text(text)
    with pytest.raises(ValueError) as error:
        resolve_memory(name)
    message = str(error.value)
    assert repr(name) in message and word in message and "\n" not in message
