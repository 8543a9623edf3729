"""Values that users type as JSON or Python literals, and that settings files hold as JSON."""

import ast
import json
import math
import warnings
from collections.abc import Sequence
from typing import Any


def read_literal(text: str) -> Any:
    """The value that `text` denotes: a JSON or Python literal, otherwise `text` itself.

    true and True, null and None, 3, 1e-3, [1, 2], {"a": 1} and "3" (a string) are literals, easy is a string. Raises
    `ValueError` for a list, dictionary or quoted string that cannot be read.
    """
    for read in (json.loads, _read_python):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if _is_plain(value):
            return value
    if text.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(text)
    if text.lstrip()[:1] in ("[", "{", "(", '"', "'"):
        raise ValueError(f"cannot read {text[:100]!r}: a list is [1, 2], a dictionary {{'a': 1}}, and text '\"[\"'")
    return text


def _read_python(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what looks like a mistake in a program, as in 1if
        return ast.literal_eval(text.strip())


def read_pairs(words: Sequence[str]) -> dict[str, Any]:
    """Name and value in turn → name: value. Raises `ValueError` for a name without a value or given twice."""
    if len(words) % 2:
        raise ValueError(f"needs pairs of a name and a value, got {len(words)} words")
    names = list(words[::2])
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is given twice")
    return {name: read_literal(value) for name, value in zip(names, words[1::2], strict=True)}


def as_json(value: Any, what: str) -> Any:
    """`value` as it comes back from a JSON file: tuples become lists.

    Raises `ValueError`, which begins with `what`, for a value that JSON does not hold, such as NaN or an object.
    """
    if isinstance(value, list | tuple):
        return [as_json(each, what) for each in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: as_json(each, what) for name, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{what} must be finite, got {value}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    got = " ".join(repr(value).split())[:100]
    raise ValueError(f"{what} must be a number, text, true, false, null, or a list or dictionary of these, got {got}")


def _is_plain(value: Any) -> bool:
    """Whether Python's literal is one of JSON's kinds too, or a tuple."""
    if isinstance(value, list | tuple):
        return all(_is_plain(each) for each in value)
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(each) for name, each in value.items())
    return value is None or isinstance(value, bool | int | float | str)
