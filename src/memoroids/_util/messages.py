"""The wording of error messages: in one line, with suggestions for misspelt names."""

import difflib
from collections.abc import Iterable


def one_line(error: BaseException) -> str:
    """The type and message of an error, without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def printable(text: object) -> str:
    """`text` unchanged, or quoted and escaped if it contains characters that cannot be printed in one line."""
    return str(text) if str(text).isprintable() else repr(text)


def suggest(name: str, known: Iterable[str], *, most: int | None = None) -> str:
    """The end of a message about an unknown `name`: '; did you mean …?' with the most similar of the `known` names.

    If none is similar, it lists the known names instead, or is empty if there are none or more than `most`.
    """
    lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {lower[near[0]]}?"
    return f"; there are {', '.join(lower.values())}" if lower and (most is None or len(lower) <= most) else ""
