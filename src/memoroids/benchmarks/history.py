"""Two files that `memoroids bench --json` wrote, side by side."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from memoroids.benchmarks.measurement import time_text

NOTABLE = 1.15
"""Factor from which on a change is named: ratios of one machine vary by about as much between runs."""


class Change(NamedTuple):
    """One measurement of two files.

    `seconds`, `multiples`: the older and the newer value; the second is the time as a multiple of the measurement's
    first limit, None where it has none.
    """

    question: str
    what: str
    seconds: tuple[float, float]
    multiples: tuple[float, float] | None

    @property
    def times(self) -> float:
        """How many times as long it takes as before: against the limit if it has one, which other machines share."""
        old, new = self.multiples or self.seconds
        return new / old


def read(path: Path) -> dict[str, Any]:
    """The object in a file. Raises `ValueError`, naming it, if `memoroids bench --json` did not write it."""
    try:
        found = json.loads(path.read_text())
        named = {question: {row["what"]: row for row in rows} for question, rows in _comparable(found["rows"]).items()}
        numbers = [
            each
            for rows in named.values()
            for row in rows.values()
            for each in (row["seconds"], *row["limits"].values())
        ]
        if not all(number > 0 for number in numbers) or not isinstance(found["machine"], dict):
            raise ValueError("a time that is not positive, or no machine")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no file of `memoroids bench --json`: {error!r}") from error
    return found | {"rows": named}


def _comparable(rows: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The questions whose rows are measurements with limits."""
    return {question: found for question, found in rows.items() if found and "what" in found[0]}


def compare(old: Path, new: Path) -> str:
    """What two files have in common, as text: where they were measured, then a line for each measurement in both.

    Raises `ValueError` if a file cannot be read, or if they have no measurement in common.
    """
    before, after = read(old), read(new)
    changes = [
        Change(question, what, (rows[what]["seconds"], row["seconds"]), _multiples(rows[what], row))
        for question, found in after["rows"].items()
        for rows in (before["rows"].get(question, {}),)
        for what, row in found.items()
        if what in rows
    ]
    if not changes:
        raise ValueError(f"{old} and {new} have no measurement in common")
    lines = _machines(before["machine"], after["machine"])
    for question in dict.fromkeys(change.question for change in changes):
        lines += ["", f"# {question}"]
        lines += [_line(change) for change in changes if change.question == question]
    here, there = (sum(map(len, found["rows"].values())) - len(changes) for found in (before, after))
    if here or there:
        lines += ["", f"only in {old}: {here}, only in {new}: {there}"]
    return "\n".join(lines)


def _multiples(old: dict[str, Any], new: dict[str, Any]) -> tuple[float, float] | None:
    common = next((name for name in new["limits"] if name in old["limits"]), None)
    if common is None:
        return None
    return old["seconds"] / old["limits"][common], new["seconds"] / new["limits"][common]


def _machines(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    differ = [f"{name} {old.get(name)} -> {new.get(name)}" for name in {**old, **new} if old.get(name) != new.get(name)]
    if not differ:
        return ["measured on machines of the same description"]
    return [f"measured with {', '.join(differ)}: multiples of the limit are more reliable than times"]


def _line(change: Change) -> str:
    seconds = " -> ".join(map(time_text, change.seconds))
    multiples = " -> ".join(f"{each:,.2f}" for each in change.multiples) + " × its limit" if change.multiples else ""
    word = "slower" if change.times > NOTABLE else "faster" if change.times < 1 / NOTABLE else ""
    return f"{change.what:76} {seconds:>26}   {multiples:28} {word}".rstrip()
