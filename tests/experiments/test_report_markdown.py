"""Tables in markdown."""

import math

from memoroids.experiments.report_markdown import markdown


def test_a_range_stands_behind_its_number():
    rows = [
        {"name": "a", "final": 480.0, "final low": 470.0, "final high": 490.0, "best": 0.5},
        {"name": "b", "final": 0.125, "final low": math.nan, "final high": math.nan, "best": ""},
        {"name": "c", "final": 2.5, "final low": 2.5, "final high": 2.5, "best": 3.0},
    ]
    assert markdown(rows).splitlines() == [
        "| name | final | best |",
        "|---|---|---|",
        "| a | 480 [470, 490] | 0.50 |",
        "| b | 0.12 |  |",
        "| c | 2.50 | 3 |",
    ]
