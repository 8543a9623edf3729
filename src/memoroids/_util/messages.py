"""How errors are worded: in one line, with the nearest of what is known."""

import difflib
from collections.abc import Iterable


def one_line(error: BaseException) -> str:
    """The type of an error and what it says, without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def printable(text: object) -> str:
    """A foreign name as it is, or quoted where a line could not hold it."""
    return str(text) if str(text).isprintable() else repr(text)


def suggest(name: str, known: Iterable[str], *, most: int | None = None) -> str:
    """'; did you mean …?' with the nearest of `known`; where none is near their list, unless there are over `most`."""
    lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {lower[near[0]]}?"
    return f"; there are {', '.join(lower.values())}" if lower and (most is None or len(lower) <= most) else ""
