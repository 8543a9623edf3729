"""The tables of a grid against hand-computed values. The runs are those of `written_grids`."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_grids import AREA, CHOICE, COUNT, FIRST, LEVELS, SHARE, make, only, written

from memoroids.experiments import results, tables
from memoroids.experiments.grid import Cell
from memoroids.experiments.results import Results


def test_scores_by_hand(complete: tuple[Path, Results]):
    rows = tables.scores(complete[1])
    assert [(row["task"], row["memory"], row["batching"]) for row in rows] == [
        (*pair, batching) for pair in (FIRST, COUNT) for batching in ("TBB", "SBB L=100", "SBB L=10")
    ]
    for row in rows:
        levels = LEVELS[row["task"], row["memory"], row["batching"]]
        for name, above in {"mean": AREA, "last": 0.2, "maximum": 0.4, "final": 0.325}.items():
            assert row[name] == pytest.approx(np.mean(levels) + above, rel=1e-12)
            # Of three seeds, one is drawn three times in a 27th of all draws, which is more than 2.5%.
            assert row[f"{name} low"] == pytest.approx(min(levels) + above, rel=1e-12)
            assert row[f"{name} high"] == pytest.approx(max(levels) + above, rel=1e-12)
        assert (row["seeds"], row["reached target"], row["episodes to target (median)"]) == (3, 0, "")


def test_comparisons_by_hand(complete: tuple[Path, Results]):
    rows = tables.against_segments(complete[1])
    assert {(row["better"], row["than"]) for row in rows} == {("TBB", "SBB L=100"), ("TBB", "SBB L=10")}
    expected = {
        ("SBB L=10", *FIRST): (0.5, 1.0, "confirmed"),
        ("SBB L=100", *FIRST): (0.0, 0.5, "undecided"),
        ("SBB L=10", *COUNT): (-0.1, (0.5 + 1.5 + 2) / 9, "undecided"),
        ("SBB L=100", *COUNT): (-0.3, 0.0, "contradicted"),
        ("SBB L=10", "all", "all"): (0.2, (1 + 4 / 9) / 2, "confirmed"),
        ("SBB L=100", "all", "all"): (-0.15, 0.25, "contradicted"),
    }
    assert len(rows) == len(expected)
    for (than, task, memory), (difference, better, verdict) in expected.items():
        row = only(rows, than=than, task=task, memory=memory)
        assert row["difference"] == pytest.approx(difference, abs=1e-12)
        assert row["P(improvement)"] == pytest.approx(better, abs=1e-12)
        assert (row["verdict"], row["seeds"]) == (verdict, 3)
        assert row["low"] <= row["difference"] + 1e-12 and row["difference"] - 1e-12 <= row["high"]


def test_the_interval_of_a_difference_is_that_of_all_resamples_of_both_sides(complete: tuple[Path, Results]):
    row = only(tables.against_segments(complete[1]), than="SBB L=10", task=COUNT[0])
    tape, segments = LEVELS[*COUNT, "TBB"], LEVELS[*COUNT, "SBB L=10"]
    means = [[np.mean(drawn) for drawn in itertools.product(side, repeat=3)] for side in (tape, segments)]
    expected = np.quantile(np.subtract.outer(*means).ravel(), (0.025, 0.975))
    np.testing.assert_allclose((row["low"], row["high"]), expected, atol=0.04)


def test_paired_differences_are_of_runs_with_the_same_seed(complete: tuple[Path, Results]):
    row = only(tables.against_segments(complete[1]), than="SBB L=10", task=COUNT[0])
    differences = np.subtract(LEVELS[*COUNT, "TBB"], LEVELS[*COUNT, "SBB L=10"])
    assert row["paired"] == pytest.approx(np.mean(differences), abs=1e-12)
    means = [np.mean(drawn) for drawn in itertools.product(differences, repeat=3)]
    expected = np.quantile(means, (0.025, 0.975), method="inverted_cdf")
    np.testing.assert_allclose((row["paired low"], row["paired high"]), expected, atol=0.04)


def test_longer_segments_stand_against_the_next_shorter_ones_however_they_are_ordered(complete: tuple[Path, Results]):
    rows = tables.between_lengths(complete[1])
    assert {(row["better"], row["than"]) for row in rows} == {("SBB L=100", "SBB L=10")}
    row = only(rows, task="all")
    assert row["difference"] == pytest.approx((0.5 + 0.2) / 2, abs=1e-12)
    assert row["verdict"] == "confirmed"


def test_the_aggregate_is_over_all_pairs(complete: tuple[Path, Results]):
    rows = tables.aggregate(complete[1])
    for batching, mean in {"TBB": 0.4, "SBB L=10": 0.2, "SBB L=100": 0.55}.items():
        row = only(rows, batching=batching)
        assert row["mean"] == pytest.approx(mean + AREA, rel=1e-12)
        assert (row["pairs"], row["seeds"]) == (2, 6)
        assert row["mean low"] < row["mean"] < row["mean high"]
        # Of six scores, the middle three: two whole and two half ones.
        scores = sorted(LEVELS[*FIRST, batching] + LEVELS[*COUNT, batching])
        middle = (scores[1] / 2 + scores[2] + scores[3] + scores[4] / 2) / 3
        assert row["interquartile mean"] == pytest.approx(middle + AREA, rel=1e-12)


def test_sensitivity_beyond_the_reward_and_beyond_segments_by_hand(complete: tuple[Path, Results]):
    for row in tables.sensitivity(complete[1]):
        assert (row["RML"], row["seeds"], row["VML 50%"], row["VML 95%"]) == (2, 3, 1.0, 100.0)
        assert row["beyond RML"] == pytest.approx(0.2)
        assert row["beyond L=10"] == pytest.approx(0.2)
        assert row["beyond L=100"] == pytest.approx(0.1)
        assert row["first observation"] == pytest.approx(0.1)
        assert row["beyond RML low"] == pytest.approx(row["beyond RML high"])


def test_cost_counts_padding(complete: tuple[Path, Results]):
    for row in tables.cost(complete[1]):
        real = 40_000 * (1.0 if row["batching"] == "TBB" else 0.8)
        assert (row["training episodes"], row["updates"], row["slots"]) == (40, 40, 40_000)
        assert row["real transitions"] == real and row["padding"] == pytest.approx(1 - real / 40_000)
        assert (row["seconds"], row["seconds (deviation)"]) == (2.0, 0.0)


def test_every_run_and_every_point_of_a_curve_is_in_a_table(complete: tuple[Path, Results]):
    rows = tables.runs(complete[1])
    assert len(rows) == 18
    row = only(rows, task="CountRecallEasy", batching="SBB L=10", seed=2)
    assert (row["status"], row["skipped updates"], row["episodes to target"]) == ("done", 0, "")
    assert row["maximum"] == pytest.approx(1.0)
    rows = tables.curves(complete[1])
    assert len(rows) == 6 * 4
    row = only(rows, task="CountRecallEasy", batching="SBB L=10", episode=30)
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((0.3 + 0.4, 0.1 + 0.4, 0.6 + 0.4))


def test_the_level_is_reached_where_it_stays(tmp_path: Path):
    curves = [[1.0] * 8, [0.0] * 2 + [0.96] * 6, [0.0] + [1.0] * 3 + [0.0] + [1.0] * 3]
    choice = dataclasses.replace(CHOICE, tasks=FIRST[:1], segment_lengths=(), train_episodes=80)
    make(tmp_path / "grid", choice, lambda cell, path: written(cell, path, curves[cell.seed]))
    found = results.load(tmp_path / "grid")
    (row,) = tables.scores(found)
    assert (row["reached target"], row["episodes to target (median)"]) == (2, 30)
    assert row["target"] == 0.95
    assert [row["episodes to target"] for row in tables.runs(found)] == [10, 30, ""]
    aimless = found._replace(runs=[run._replace(summary={"final_return": 1.0}) for run in found.runs])
    (row,) = tables.scores(aimless)
    assert (row["target"], row["reached target"], row["episodes to target (median)"]) == ("", "", "")
    assert [row["episodes to target"] for row in tables.runs(aimless)] == ["", "", ""]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.2, "confirmed"),
        (-0.2, -0.1, "contradicted"),
        (-0.1, 0.1, "undecided"),
        (0.0, 0.1, "undecided"),
        (-0.1, 0.0, "undecided"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_a_verdict_needs_an_interval_on_one_side_of_zero(low: float, high: float, said: str):
    assert tables.verdict(low, high) == said


def test_an_ablations_segments_stand_against_both_tapes_and_no_tape_against_the_other(tmp_path: Path):
    choice = dataclasses.replace(CHOICE, tasks=FIRST[:1], segment_lengths=(100, 20), ablations=("loss",))
    make(tmp_path / "grid", choice, lambda cell, path: written(cell, path, [0.1 * cell.seed] * 4))
    found = results.load(tmp_path / "grid")
    changed = " (Huber of mean)"
    assert {(row["better"], row["than"]) for row in tables.against_segments(found)} == {
        ("TBB", "SBB L=100"),
        ("TBB", "SBB L=20"),
        ("TBB", f"SBB L=100{changed}"),
        ("TBB", f"SBB L=20{changed}"),
        (f"TBB{changed}", f"SBB L=100{changed}"),
        (f"TBB{changed}", f"SBB L=20{changed}"),
    }
    assert {(row["better"], row["than"]) for row in tables.between_lengths(found)} == {("SBB L=100", "SBB L=20")}
    names = {name for row in tables.sensitivity(found) for name in row if name.startswith("beyond L")}
    assert names == {f"beyond L={length}{end}" for length in (20, 100) for end in ("", " low", " high")}


def test_only_pairs_that_have_every_batching_are_aggregated(tmp_path: Path):
    def write(cell: Cell, path: Path) -> None:
        if (cell.task, cell.batching) != ("CountRecallEasy", "SBB L=10"):
            written(cell, path)

    make(tmp_path / "grid", CHOICE, write)
    rows = tables.aggregate(results.load(tmp_path / "grid"))
    assert {(row["batching"], row["pairs"]) for row in rows} == {("TBB", 1), ("SBB L=10", 1), ("SBB L=100", 1)}
    assert only(rows, batching="TBB")["mean"] == pytest.approx(0.6 + AREA)


@pytest.mark.parametrize("kind", ["episode", "unknown", "not measured", "nothing counted", "one file of two"])
def test_sensitivity_is_shown_as_far_as_it_is_known(kind: str, tmp_path: Path):
    def write(cell: Cell, path: Path) -> None:
        rml: Any = {"episode": "episode", "unknown": None}.get(kind, 2)
        skipped = cell.seed == 0 and kind == "not measured"
        written(cell, path, share=None if skipped else SHARE, rml=rml)
        if cell.seed == 0 and kind == "nothing counted":
            found = json.loads((path / "run" / "sensitivity.json").read_text())
            (path / "run" / "sensitivity.json").write_text(json.dumps(found | {"episodes": 0, "left_out": 2}))
        if cell.seed == 0 and kind == "one file of two":
            (path / "run" / "sensitivity.csv").unlink()

    make(tmp_path / "grid", dataclasses.replace(CHOICE, tasks=FIRST[:1], segment_lengths=(10,), seeds=2), write)
    found = results.load(tmp_path / "grid")
    assert found.gaps == []
    for row in tables.sensitivity(found):
        assert row["seeds"] == (2 if kind in ("episode", "unknown") else 1)
        assert row["beyond L=10"] == pytest.approx(0.2)
        if kind in ("episode", "unknown"):
            assert (row["RML"], row["beyond RML"]) == ("episode" if kind == "episode" else None, "")
        else:
            assert row["beyond RML"] == pytest.approx(0.2)


def test_runs_that_evaluate_at_different_episodes_are_taken_in_the_order_of_their_evaluations(
    complete: tuple[Path, Results],
):
    first, second = complete[1].runs[:2]
    rows = [
        [{"episode": 10 * i + shift, "eval_return": float(i + shift)} for i in range(1, 4 + shift)] for shift in (0, 1)
    ]
    runs = [run._replace(rows=own) for run, own in zip((first, second), rows, strict=True)]
    episodes, values = tables.aligned(runs, "eval_return")
    np.testing.assert_allclose(episodes, [10.5, 20.5, 30.5])
    np.testing.assert_allclose(values, [[1, 2, 3], [2, 3, 4]])
