"""The figures of runs are pictures, whatever they are given to show."""

import math
from pathlib import Path

import numpy as np
import pytest

from memoroids.analysis.sensitivity import Profile
from memoroids.runs.plots import draw_curve, draw_heatmap, draw_profiles
from metric_rows import ROWS, row
from profiles import LOG, assert_picture, profile_of


@pytest.mark.parametrize(
    "rows", [ROWS[:1], ROWS, [row(10, train_return=math.nan)]], ids=["one row", "several", "no number"]
)
def test_the_curve_is_a_picture(rows: list[dict[str, float]], tmp_path: Path):
    path = tmp_path / "curve.png"
    draw_curve(path, rows, "popgym-RepeatFirstEasy-v0, lru, seed 0", "greedy")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.stat().st_size > 5_000


def test_another_curve_is_another_picture(tmp_path: Path):
    draw_curve(tmp_path / "one.png", ROWS, "title", "greedy")
    draw_curve(tmp_path / "two.png", [row(10), row(20, eval_return=5.0)], "title", "greedy")
    draw_curve(tmp_path / "three.png", ROWS, "title", "greedy")
    one, two, three = ((tmp_path / f"{name}.png").read_bytes() for name in ("one", "two", "three"))
    assert one != two and one == three


@pytest.mark.parametrize(("rml", "segment_length"), [(3, 10), (math.inf, None), (None, None)], ids=str)
def test_profiles_are_drawn_together(rml: float | None, segment_length: int | None, tmp_path: Path):
    profiles = {f"memory {i}": profile_of(*np.arange(1, 20 + i) ** -1.0) for i in range(4)}
    profiles["flat"] = Profile.of([np.zeros(9)])
    for count in (1, 5):
        path = tmp_path / f"{count}.png"
        shown = dict(list(profiles.items())[-count:])
        draw_profiles(path, shown, rml=rml, segment_length=segment_length, title="RepeatPreviousEasy")
        assert_picture(path)


@pytest.mark.parametrize("rml", [1, math.inf, None], ids=str)
def test_profiles_over_training_are_a_heat_map(rml: float | None, tmp_path: Path):
    log = {number: np.asarray(share) for number, share in LOG.items()}
    draw_heatmap(tmp_path / "map.png", log, rml=rml, title="RepeatPreviousEasy, lru, seed 0")
    assert_picture(tmp_path / "map.png")


def test_a_log_without_a_profile_is_drawn_too(tmp_path: Path):
    draw_heatmap(tmp_path / "map.png", {})
    assert_picture(tmp_path / "map.png")
