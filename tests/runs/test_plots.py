"""The figures of runs are pictures, whatever they are given to show."""

import io
import math
from pathlib import Path

import numpy as np
import pytest

from memoroids.analysis.sensitivity import Profile
from memoroids.runs.plots import draw_comparison, draw_curve, draw_heatmap, draw_profiles, learning_curves
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


@pytest.mark.parametrize("number", [1, 3, 12, 35])
def test_the_legend_stands_below_the_axes_and_names_every_curve(number: int):
    lines = {f"lru, learning_rate {i}e-4, {'x' * i}": ("eval_return", [ROWS]) for i in range(number)}
    lines["a long name of a directory " * 9] = "eval_return", [ROWS]
    figure = learning_curves(lines, "RepeatFirstEasy", "return")
    figure.savefig(io.BytesIO())  # which lays it out
    (legend,), (axes,) = figure.legends, figure.axes
    assert [text.get_text().replace("\n", " ") for text in legend.get_texts()] == [label.strip() for label in lines]
    around, inside = legend.get_window_extent(), axes.get_tightbbox()
    assert around.y1 <= inside.y0 and around.y0 >= 0
    assert around.x0 >= 0 and around.x1 <= figure.bbox.x1
    assert axes.get_window_extent().height > 200
    styles = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(styles) == number + 1


def test_several_seeds_are_drawn_as_their_mean_and_a_standard_deviation_to_each_side():
    seeds = [[row(10, eval_return=first), row(20, eval_return=3.0), row(30)][:size] for first, size in ((1, 3), (5, 2))]
    (axes,) = learning_curves({"lru": ("eval_return", seeds), "mlp": ("eval_return", seeds[:1])}, "", "return").axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[10, 3], [20, 3]])
    assert len(axes.lines[1].get_xydata()) == 3
    (band,) = axes.collections
    deviation = math.sqrt(((1 - 3) ** 2 + (5 - 3) ** 2) / (2 - 1))
    corners = band.get_paths()[0].vertices
    at = {float(x): sorted({round(float(y), 6) for _, y in corners[corners[:, 0] == x]}) for x in corners[:, 0]}
    assert at == {10.0: pytest.approx([3 - deviation, 3 + deviation], abs=1e-5), 20.0: [3.0]}


@pytest.mark.parametrize("label", ["$x^$ of $5", "a_b", "α"])
def test_labels_are_shown_as_they_are(label: str, tmp_path: Path):
    draw_comparison(tmp_path / "both.png", {label: [ROWS, ROWS], "empty": []}, label, "return")
    assert_picture(tmp_path / "both.png")


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


def test_the_return_of_random_actions_is_a_dashed_line_across(tmp_path: Path):
    lines = {"lru": ("eval_return", [ROWS])}
    (axes,) = learning_curves(lines, "title", "return", random=0.25).axes
    (line,) = [line for line in axes.lines if line.get_label() == "random actions"]
    assert line.get_linestyle() == "--" and list(line.get_ydata()) == [0.25, 0.25]
    (axes,) = learning_curves(lines, "title", "return").axes
    assert len(axes.lines) == 1
    draw_curve(tmp_path / "with.png", ROWS, "title", "greedy", random=0.25)
    draw_curve(tmp_path / "without.png", ROWS, "title", "greedy")
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()
