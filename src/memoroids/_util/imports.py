"""Imports of objects that users name as package.module:attribute."""

import importlib
from collections.abc import Callable
from typing import Any

from memoroids._util.messages import one_line


def import_named(name: str, what: str, kind: str, fits: Callable[[Any], bool]) -> Any:
    """Imports the object that `name` refers to, in the form package.module:attribute.

    **Args:** `what`: what the object is for, the beginning of error messages. `kind`: the kind of object expected, for
    error messages. `fits`: whether an object is of this kind; it is called with None if the attribute does not exist.

    Raises `ValueError` if the module cannot be imported or has no such object.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise any exception
        raise ValueError(f"{what} {name!r}: cannot import {module_name}: {one_line(error)}") from error
    found = getattr(module, attribute, None)
    if not fits(found):
        raise ValueError(f"{what} {name!r}: {module_name} has no {kind} {attribute!r}")
    return found
