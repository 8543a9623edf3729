"""Rows of metrics for tests, each value different."""

import math

from memoroids.runs.metrics import FIELDS


def row(episode: int, **changes: float) -> dict[str, float]:
    return {name: episode + i / 8 for i, name in enumerate(FIELDS)} | {"episode": episode} | changes


ROWS = [row(10), row(20, loss=math.inf, eval_return=-0.5), row(30, eval_return=1 / 3)]
