"""Shared by the tests of benchmarks: the labels of copies, and the check that every measurement has to pass."""

from collections.abc import Iterable

from memoroids.benchmarks.measurement import Measurement

COPIES = {"copy of the same size, fresh", "copy of the same size, donated"}


def assert_compared(figures: Iterable[Measurement], references: set[str], limits: set[str]) -> None:
    """Every measurement has exactly these references and limits, with positive times."""
    for figure in figures:
        assert set(figure.references) == references and set(figure.limits) == limits
        assert figure.seconds > 0 and all(seconds > 0 for seconds in figure.limits.values())
