"""Objects by their names: importable ones by where they are, all others in this process alone."""

import subprocess
import sys

import pytest

from memoroids._util.imports import import_named, importable, name_of
from memoroids.memory.lru import LRU


def found(name: str):
    return import_named(name, "thing", "callable", callable)


def test_what_can_be_imported_is_named_by_where_it_is():
    assert name_of(LRU) == "memoroids.memory.lru:LRU"
    assert found(name_of(LRU)) is LRU and importable(name_of(LRU))


def test_what_cannot_be_imported_has_a_name_of_its_own():
    def make() -> int:
        return 1

    def other() -> int:
        return 2

    other.__qualname__ = make.__qualname__
    named = name_of(make)
    assert named == name_of(make) != name_of(other)
    assert found(named) is make and found(name_of(other)) is other and not importable(named)
    assert importable(name_of(LRU)) and found(name_of(lambda: 3))() == 3


def test_a_name_given_in_another_process_is_refused_in_one_line():
    code = "from memoroids._util.imports import name_of; print(name_of(lambda: 1))"
    name = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    # Named by the type, since a lambda has no name; this process has given that name to nothing.
    assert not importable(name)
    with pytest.raises(ValueError, match=r"thing 'given:absent' was passed as an object in another process"):
        found("given:absent")
