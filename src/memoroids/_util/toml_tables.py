"""Files of the user's own in TOML, with known keys of known kinds."""

import tomllib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from memoroids._util.messages import suggest

ReadT = TypeVar("ReadT")
_KINDS: dict[type, str] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    dict: "a table",
    list: "a list of tables",
}


def read_toml(path: Path, kinds: dict[str, type], make: Callable[[dict[str, Any]], ReadT]) -> ReadT:
    """What `make` makes of a file whose keys are among `kinds`, each with a value of its kind: key → type.

    A list is one of tables. Raises `ValueError`, naming the file, if it cannot be read, is not valid TOML, has another
    key or another kind of value, or if `make` raises one.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        check_kinds(values, kinds)
        return make(values)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # tomllib's errors are among them
        raise ValueError(f"{path}: {error}") from error


def with_dots(table: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A table where `{"a": {"b": 1}}`, which is how TOML reads `a.b = 1`, is `{"a.b": 1}` for each `a` in `names`.

    Raises `ValueError` for a key that it then has twice.
    """
    found: dict[str, Any] = {}
    for name, value in table.items():
        split = name in names and isinstance(value, dict)
        inside = {f"{name}.{inner}": leaf for inner, leaf in value.items()} if split else {name: value}
        for key, each in inside.items():
            if key in found:
                raise ValueError(f"{key} is set twice")
            found[key] = each
    return found


def check_kinds(values: dict[str, Any], kinds: dict[str, type]) -> None:
    """Raises `ValueError` for a key that is not among `kinds`, and for a value of another kind. A list is of tables."""
    for name, value in values.items():
        if name not in kinds:
            raise ValueError(f"unknown key {name!r}{suggest(name, kinds)}")
        kind = kinds[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name} must be {_KINDS[kind]}, got {value!r}")
        if isinstance(value, list) and not all(isinstance(each, dict) for each in value):
            raise ValueError(f"{name} must be written as tables, [[{name}]]")


def to_toml(value: Any) -> str:
    """A value as TOML in one line: text, numbers, flags, and lists and tables of them."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {to_toml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(to_toml, value))}]"
    if isinstance(value, str):
        escaped = "".join(_ESCAPES.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in value)
        return f'"{escaped}"'
    if isinstance(value, int | float):
        return repr(value)
    raise ValueError(f"{value!r} cannot be written as TOML")


_ESCAPES = {'"': '\\"', "\\": "\\\\"}
