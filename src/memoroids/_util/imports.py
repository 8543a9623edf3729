"""Objects that users name as package.module:attribute, and names for those that they pass in Python."""

import importlib
import itertools
from collections.abc import Callable
from typing import Any

from memoroids._util.messages import one_line

GIVEN = "given"
"""The module in the names of objects that cannot be imported, such as functions inside functions."""

_given: dict[str, Any] = {}


def name_of(value: Any) -> str:
    """The name by which `import_named` finds `value`: package.module:attribute where that is `value` itself.

    Anything else is kept under given:NAME until this process ends.
    """
    module, attribute = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if module not in (None, "__main__") and attribute.isidentifier():
        try:
            if getattr(importlib.import_module(module), attribute, None) is value:
                return f"{module}:{attribute}"
        except Exception:  # a module that was loaded in another way than by its name
            pass
    known = next((name for name, each in _given.items() if each is value), None)
    if known is None:
        plain = attribute.rpartition(".")[2] if attribute.rpartition(".")[2].isidentifier() else type(value).__name__
        names = (f"{plain}{number}" if number else plain for number in itertools.count())
        known = next(name for name in names if name not in _given)
        _given[known] = value
    return f"{GIVEN}:{known}"


def stand_for(name: str, other: str) -> None:
    """Makes `name`, of an object that another process could not import, mean what `other` names here."""
    _given[name.partition(":")[2]] = import_named(other, "object", "object", lambda found: found is not None)


def importable(name: str) -> bool:
    """Whether `name` means the same in another process."""
    return name.partition(":")[0] != GIVEN


def import_named(name: str, what: str, kind: str, fits: Callable[[Any], bool]) -> Any:
    """Imports the object that `name` refers to, in the form package.module:attribute.

    **Args:** `what`: what the object is for, the beginning of error messages. `kind`: the kind of object expected, for
    error messages. `fits`: whether an object is of this kind; it is called with None if the attribute does not exist.

    Raises `ValueError` if the module cannot be imported or has no such object.
    """
    module_name, _, attribute = name.partition(":")
    if module_name == GIVEN:
        if attribute not in _given:
            raise ValueError(f"{what} {name!r} was passed as an object in another process: pass it again in Python")
        return _given[attribute]
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise any exception
        raise ValueError(f"{what} {name!r}: cannot import {module_name}: {one_line(error)}") from error
    found = getattr(module, attribute, None)
    if not fits(found):
        raise ValueError(f"{what} {name!r}: {module_name} has no {kind} {attribute!r}")
    return found
