"""Reports of grids: tables by hand, verdicts, gaps, and a page that holds all it shows. The runs are `fake_cell`'s."""

import csv
import dataclasses
import html.parser
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import fake_cell
import numpy as np
import pytest

from memoroids.benchmarks import batching as timing
from memoroids.cli.main import main
from memoroids.experiments import figures, report, results, runner, tables
from memoroids.experiments.grid import Cell, Choice, cells
from memoroids.experiments.reproduce import reproduce
from memoroids.experiments.results import Results

CHOICE = Choice(
    "figure4",
    tasks=("RepeatFirstEasy", "CountRecallEasy"),
    memories=("lru",),
    segment_lengths=(100, 10),
    seeds=3,
    train_episodes=40,
)
FIRST, COUNT = ("RepeatFirstEasy", "lru"), ("CountRecallEasy", "lru")
# By pair and batching, for three seeds: what a curve starts from.
LEVELS = {
    (*FIRST, "TBB"): (0.5, 0.6, 0.7),
    (*FIRST, "SBB L=10"): (0.0, 0.1, 0.2),
    (*FIRST, "SBB L=100"): (0.5, 0.6, 0.7),
    (*COUNT, "TBB"): (0.1, 0.2, 0.3),
    (*COUNT, "SBB L=10"): (0.1, 0.2, 0.6),
    (*COUNT, "SBB L=100"): (0.4, 0.5, 0.6),
}
RISE = (0.0, 0.2, 0.4, 0.2)
AREA = ((0.0 + 0.2) / 2 + (0.2 + 0.4) / 2 + (0.4 + 0.2) / 2) / 3
SHARE = (0.4, 0.3, 0.1, *[0.0] * 7, 0.05, *[0.0] * 88, 0.05, 0.1)
"""By age: 0.2 beyond 2, and 0.2 at 10 and older, of which 0.1 at 100."""

Write = Callable[[Cell, Path], None]


def written(cell: Cell, directory: Path, returns: Sequence[float] | None = None, **options: Any) -> None:
    """A finished run with the level of its group and seed."""
    if returns is None:
        level = LEVELS[cell.task, cell.memory, cell.batching][cell.seed]
        returns = [level + rise for rise in RISE]
    directory.mkdir(parents=True)
    (directory / "settings.json").write_text(cell.config.to_json() + "\n")
    fake_cell.write_run(directory, json.loads(cell.config.to_json()), returns, **({"share": SHARE} | options))


def failed(directory: Path, cell: Cell, reason: str) -> None:
    directory.mkdir(parents=True)
    (directory / "settings.json").write_text(cell.config.to_json() + "\n")
    fake_cell.finish(directory, {"status": "failed", "reason": reason})


def make(
    root: Path, choice: Choice, write: Write = written, command: str = "memoroids reproduce figure4"
) -> list[Cell]:
    """A grid whose cells `write` has written, or not."""
    found = cells(choice)
    runner.prepare(root, choice, found, command)
    for cell in found:
        write(cell, runner.cell_dir(root, cell))
    return found


def only(rows: Iterable[dict[str, Any]], **values: Any) -> dict[str, Any]:
    """The one row with these values."""
    (row,) = (row for row in rows if all(row[name] == value for name, value in values.items()))
    return row


class Page(html.parser.HTMLParser):
    """What a page loads, and its text, tags left out."""

    def __init__(self, path: Path):
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [str(value) for name, value in attrs if name in ("src", "href", "data", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words.append(data)


def assert_whole(page: Page) -> None:
    """It loads nothing from elsewhere, is one document, and shows no number that is none."""
    assert all(address.startswith("data:image/png;base64,") for address in page.loaded)
    assert "url(" not in page.source and "@import" not in page.source
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert page.source.startswith("<!doctype html>") and page.source.endswith("</body></html>\n")
    assert not re.search(r"\b(nan|NaN|inf|None)\b", page.text)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """Two pairs, three batchings and three seeds, all done, with their report."""
    root = tmp_path_factory.mktemp("whole") / "grid"
    make(root, CHOICE)
    report.write(root)
    return root, results.load(root)


# --- Tables


def test_scores_by_hand(whole: tuple[Path, Results]):
    rows = tables.scores(whole[1])
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
        assert (row["seeds"], row["reached 0.95"], row["episodes to 0.95 (median)"]) == (3, 0, "")


def test_comparisons_by_hand(whole: tuple[Path, Results]):
    rows = tables.against_segments(whole[1])
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


def test_the_interval_of_a_difference_is_that_of_all_resamples_of_both_sides(whole: tuple[Path, Results]):
    row = only(tables.against_segments(whole[1]), than="SBB L=10", task=COUNT[0])
    tape, segments = LEVELS[*COUNT, "TBB"], LEVELS[*COUNT, "SBB L=10"]
    means = [[np.mean(drawn) for drawn in itertools.product(side, repeat=3)] for side in (tape, segments)]
    expected = np.quantile(np.subtract.outer(*means).ravel(), (0.025, 0.975))
    np.testing.assert_allclose((row["low"], row["high"]), expected, atol=0.04)


def test_paired_differences_are_of_runs_with_the_same_seed(whole: tuple[Path, Results]):
    row = only(tables.against_segments(whole[1]), than="SBB L=10", task=COUNT[0])
    differences = np.subtract(LEVELS[*COUNT, "TBB"], LEVELS[*COUNT, "SBB L=10"])
    assert row["paired"] == pytest.approx(np.mean(differences), abs=1e-12)
    means = [np.mean(drawn) for drawn in itertools.product(differences, repeat=3)]
    expected = np.quantile(means, (0.025, 0.975), method="inverted_cdf")
    np.testing.assert_allclose((row["paired low"], row["paired high"]), expected, atol=0.04)


def test_longer_segments_stand_against_the_next_shorter_ones_however_they_are_ordered(whole: tuple[Path, Results]):
    rows = tables.between_lengths(whole[1])
    assert {(row["better"], row["than"]) for row in rows} == {("SBB L=100", "SBB L=10")}
    row = only(rows, task="all")
    assert row["difference"] == pytest.approx((0.5 + 0.2) / 2, abs=1e-12)
    assert row["verdict"] == "confirmed"


def test_the_aggregate_is_over_all_pairs(whole: tuple[Path, Results]):
    rows = tables.aggregate(whole[1])
    for batching, mean in {"TBB": 0.4, "SBB L=10": 0.2, "SBB L=100": 0.55}.items():
        row = only(rows, batching=batching)
        assert row["mean"] == pytest.approx(mean + AREA, rel=1e-12)
        assert (row["pairs"], row["seeds"]) == (2, 6)
        assert row["mean low"] < row["mean"] < row["mean high"]
        # Of six scores, the middle three: two whole and two half ones.
        scores = sorted(LEVELS[*FIRST, batching] + LEVELS[*COUNT, batching])
        middle = (scores[1] / 2 + scores[2] + scores[3] + scores[4] / 2) / 3
        assert row["interquartile mean"] == pytest.approx(middle + AREA, rel=1e-12)


def test_sensitivity_beyond_the_reward_and_beyond_segments_by_hand(whole: tuple[Path, Results]):
    for row in tables.sensitivity(whole[1]):
        assert (row["RML"], row["seeds"], row["VML 50%"], row["VML 95%"]) == (2, 3, 1.0, 100.0)
        assert row["beyond RML"] == pytest.approx(0.2)
        assert row["beyond L=10"] == pytest.approx(0.2)
        assert row["beyond L=100"] == pytest.approx(0.1)
        assert row["first observation"] == pytest.approx(0.1)
        assert row["beyond RML low"] == pytest.approx(row["beyond RML high"])


def test_cost_counts_padding(whole: tuple[Path, Results]):
    for row in tables.cost(whole[1]):
        real = 40_000 * (1.0 if row["batching"] == "TBB" else 0.8)
        assert (row["training episodes"], row["updates"], row["slots"]) == (40, 40, 40_000)
        assert row["real transitions"] == real and row["padding"] == pytest.approx(1 - real / 40_000)
        assert (row["seconds"], row["seconds (deviation)"]) == (2.0, 0.0)


def test_every_run_and_every_point_of_a_curve_is_in_a_table(whole: tuple[Path, Results]):
    rows = tables.runs(whole[1])
    assert len(rows) == 18
    row = only(rows, task="CountRecallEasy", batching="SBB L=10", seed=2)
    assert (row["status"], row["skipped updates"], row["episodes to 0.95"]) == ("done", 0, "")
    assert row["maximum"] == pytest.approx(1.0)
    rows = tables.curves(whole[1])
    assert len(rows) == 6 * 4
    row = only(rows, task="CountRecallEasy", batching="SBB L=10", episode=30)
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((0.3 + 0.4, 0.1 + 0.4, 0.6 + 0.4))


def test_the_level_is_reached_where_it_stays(tmp_path: Path):
    curves = [[1.0] * 8, [0.0] * 2 + [0.96] * 6, [0.0] + [1.0] * 3 + [0.0] + [1.0] * 3]
    choice = dataclasses.replace(CHOICE, tasks=FIRST[:1], segment_lengths=(), train_episodes=80)
    make(tmp_path / "grid", choice, lambda cell, path: written(cell, path, curves[cell.seed]))
    found = results.load(tmp_path / "grid")
    (row,) = tables.scores(found)
    assert (row["reached 0.95"], row["episodes to 0.95 (median)"]) == (2, 30)
    assert [row["episodes to 0.95"] for row in tables.runs(found)] == [10, 30, ""]


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


# --- The page and its files


def test_a_report_is_a_page_with_its_figures_and_tables_beside_it(whole: tuple[Path, Results]):
    directory = whole[0] / "report"
    assert {path.name for path in directory.iterdir()} == {"index.html", "figures", "tables"}
    assert {path.name for path in (directory / "tables").iterdir()} == {f"{name}.csv" for name in tables.TABLES}
    drawn = {path.name for path in (directory / "figures").iterdir()}
    names = {f"{what}-{task}" for what in ("curves", "sensitivity") for task in ("RepeatFirstEasy", "CountRecallEasy")}
    assert drawn == {f"{name}.{kind}" for name in names | {"comparison"} for kind in ("png", "pdf")}
    for path in (directory / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG" if path.suffix == ".png" else b"%PDF")
    with (directory / "tables" / "tape_against_segments.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = tables.against_segments(whole[1])
    assert rows == [{name: str(value) for name, value in row.items()} for row in expected]


def test_a_page_is_self_contained_and_says_what_was_found(whole: tuple[Path, Results]):
    page = Page(whole[0] / "report" / "index.html")
    assert_whole(page)
    assert len(page.loaded) == page.tags.count("img") == 5
    assert "18 of 18 runs done" in page.text and "are missing" not in page.text
    claim = (
        "Tapes learn faster than segments (TBB against SBB L=10, over all pairs): confirmed , difference of mean return"
    )
    assert claim in page.text
    assert "(TBB against SBB L=100, over all pairs): contradicted , difference" in page.text
    assert (
        "Longer segments learn faster than shorter ones (SBB L=100 against SBB L=10, over all pairs): confirm"
        in page.text
    )
    assert page.source.count('<strong class="contradicted">contradicted</strong>') == 1
    # Each length speaks of what its own segments cannot reach.
    assert "RepeatFirstEasy, lru, SBB L=10: 20% [20%, 20%] of the value's sensitivity lies beyond L=10." in page.text
    assert "RepeatFirstEasy, lru, SBB L=100: 10% [10%, 10%] of the value's sensitivity lies beyond L=100." in page.text
    assert "SBB L=100: 20% [20%, 20%] of the value's sensitivity lies beyond L=10." not in page.text
    assert (
        "SBB L=10: 10%" not in page.text
        and "lru, TBB: 20% [20%, 20%] of the value's sensitivity lies beyond RML" in page.text
    )
    assert "memoroids reproduce figure4" in page.text


def test_settings_that_differ_between_tapes_and_segments_are_not_said_to_be_the_same(tmp_path: Path):
    choice = dataclasses.replace(CHOICE, tasks=FIRST[:1], segment_state="stored", segment_count="transitions", seeds=1)
    make(tmp_path / "grid", choice, lambda cell, path: written(cell, path, [0.0, 1.0], share=None))
    page = Page(report.write(tmp_path / "grid"))
    same = page.text.partition("The same in all: ")[2].partition(". ")[0]
    assert "segment_state stored" in same and "segment_count transitions" in same and "train_episodes 40" in same
    assert not re.search(r"batching tape|segment_length|\bseed\b", same)


def test_a_grid_of_one_seed_has_numbers_and_no_intervals(tmp_path: Path):
    make(tmp_path / "grid", dataclasses.replace(CHOICE, tasks=FIRST[:1], seeds=1))
    page = Page(report.write(tmp_path / "grid"))
    assert_whole(page)
    assert (
        "undecided , difference of mean return over training 0.500, between runs of the same seed 0.500, probability"
        in page.text
    )
    assert "confirmed , difference" not in page.text and "contradicted , difference" not in page.text
    assert "[" not in page.text.partition("Returns")[2].partition("How this was made")[0]
    assert not (tmp_path / "grid" / "report" / "figures" / "comparison.png").exists()


def test_an_unfinished_grid_lists_its_gaps_with_their_reasons(tmp_path: Path):
    nasty = 'ValueError: <script>alert("&")</script>'

    def write(cell: Cell, path: Path) -> None:
        if cell.seed == 0 and cell.batching != "SBB L=100":
            # Some panels lack what others have.
            if (cell.task, cell.batching) != (COUNT[0], "TBB"):
                written(cell, path)
        elif cell.seed == 0:
            failed(path, cell, nasty)
        elif cell.seed == 1:
            written(cell, path)
            (path / "cell.json").unlink()

    make(tmp_path / "grid", CHOICE, write, command="memoroids reproduce figure4 --output '<b>&'")
    page = Page(report.write(tmp_path / "grid"))
    assert_whole(page)
    assert "3 of 18 runs done" in page.text and "15 runs are missing" in page.text
    assert f"CountRecallEasy lru SBB L=100 0 {nasty}" in page.text
    assert "CountRecallEasy lru SBB L=100 1 not finished" in page.text
    assert "CountRecallEasy lru TBB 0 not run yet" in page.text
    assert "--output '<b>&'" in page.text and "b" not in page.tags
    rows = tables.runs(results.load(tmp_path / "grid"))
    assert only(rows, task="CountRecallEasy", batching="SBB L=100", seed=0)["status"] == nasty
    assert only(rows, task="CountRecallEasy", batching="SBB L=100", seed=0)["final"] == ""


def test_a_grid_that_was_never_run_gives_a_page_too(tmp_path: Path):
    make(tmp_path / "grid", CHOICE, lambda cell, path: None)
    page = Page(report.write(tmp_path / "grid"))
    assert_whole(page)
    assert "0 of 18 runs done" in page.text and "18 runs are missing" in page.text
    assert "Nothing has been run yet" in page.text
    written_tables = {path.stem: path.read_text() for path in (tmp_path / "grid" / "report" / "tables").iterdir()}
    assert {name for name, text in written_tables.items() if text} == {"runs"}
    assert list((tmp_path / "grid" / "report" / "figures").iterdir()) == []


def test_one_pair_with_one_way_of_batching_has_nothing_to_compare(tmp_path: Path):
    choice = dataclasses.replace(CHOICE, tasks=FIRST[:1], segment_lengths=(), seeds=2)
    make(tmp_path / "grid", choice, lambda cell, path: written(cell, path, share=None))
    page = Page(report.write(tmp_path / "grid"))
    assert_whole(page)
    assert page.tags.count("img") == 1
    for absent in ("The paper's claims", "Tapes against segments Difference", "Over all pairs", "How far back the val"):
        assert absent not in page.text


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


def test_a_page_says_nothing_of_a_reward_memory_length_that_is_not_known(tmp_path: Path):
    choice = dataclasses.replace(CHOICE, tasks=FIRST[:1], segment_lengths=(10,), seeds=2)
    make(tmp_path / "grid", choice, lambda cell, path: written(cell, path, rml=None))
    page = Page(report.write(tmp_path / "grid"))
    assert_whole(page)
    assert "lies beyond L=10" in page.text and "lies beyond RML" not in page.text


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda run: (run / "summary.json").unlink(), "summary"),
        (lambda run: (run / "summary.json").write_text("{"), "summary.json"),
        (lambda run: (run / "summary.json").write_text("{}"), "final_return"),
        (lambda run: (run / "metrics.csv").unlink(), "metrics.csv"),
        (lambda run: (run / "metrics.csv").write_text(fake_cell.HEADER + "\n"), "metrics.csv"),
        (lambda run: (run / "metrics.csv").write_text("a,b\n"), "metrics.csv"),
        (lambda run: fake_cell_rewritten(run, math.nan), "metrics.csv"),
        (lambda run: (run / "sensitivity.json").write_text("{"), "sensitivity.csv"),
        (lambda run: (run / "sensitivity.csv").write_text("a,b\n1,2\n"), "sensitivity.csv"),
    ],
)
def test_a_run_that_cannot_be_read_is_a_gap_that_names_the_file(
    damage: Callable[[Path], Any], word: str, tmp_path: Path
):
    found = make(tmp_path / "grid", dataclasses.replace(CHOICE, tasks=FIRST[:1]))
    damage(runner.cell_dir(tmp_path / "grid", found[0]) / "run")
    read = results.load(tmp_path / "grid")
    (gap,) = read.gaps
    assert gap.cell == found[0] and word in gap.reason and str(tmp_path) in gap.reason and "\n" not in gap.reason
    for make_table in tables.TABLES.values():
        make_table(read)


def fake_cell_rewritten(run: Path, value: float) -> None:
    (run / "metrics.csv").write_text(fake_cell.HEADER + "\n" + ",".join(["10"] * 11 + [str(value)] + ["0"] * 3) + "\n")


def test_what_was_recorded_while_training_is_drawn_for_the_first_seed(tmp_path: Path):
    def write(cell: Cell, path: Path) -> None:
        written(cell, path)
        if (cell.seed, cell.batching) == (0, "TBB"):
            rows = [f"{episode},{age},{share}" for episode in (20, 40) for age, share in enumerate(SHARE)]
            (path / "run" / "sensitivity_training.csv").write_text("\n".join(["episode,age,share", *rows, ""]))

    make(tmp_path / "grid", dataclasses.replace(CHOICE, tasks=FIRST[:1], segment_lengths=(), seeds=2), write)
    captions = figures.draw(results.load(tmp_path / "grid"), tmp_path)
    assert list(captions)[-1] == "heat-RepeatFirstEasy" and "first seed" in captions["heat-RepeatFirstEasy"]
    assert all((tmp_path / f"{name}.{kind}").exists() for name in captions for kind in ("png", "pdf"))


# --- The command


def test_the_command_writes_the_report_again_and_prints_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = tmp_path / "grid"
    make(root, CHOICE, lambda cell, path: None)
    main(["report", str(root)])
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"{root / 'report' / 'index.html'}\n", "")


@pytest.mark.parametrize("kind", ["nothing", "empty", "a file", "damaged", "another version"])
def test_what_holds_no_grid_is_answered_in_one_line(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = tmp_path / "grid"
    if kind == "a file":
        root.touch()
    elif kind != "nothing":
        root.mkdir()
    if kind in ("damaged", "another version"):
        (root / "grid.json").write_text("{" if kind == "damaged" else '{"version": "0.0.1"}')
    with pytest.raises(SystemExit) as stop:
        main(["report", str(root)])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith("memoroids: ") and said.count("\n") == 1 and str(root) in said
    assert not (tmp_path / "grid" / "report").exists()


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that train nothing."""
    monkeypatch.setattr(runner, "_CELL", f"import runpy\nrunpy.run_path({fake_cell.__file__!r}, run_name='__main__')\n")
    monkeypatch.setattr(runner, "_PAUSE", 0.02)


@pytest.mark.usefixtures("faked")
def test_a_figure_is_reproduced_from_its_grid_to_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    asked = [
        "reproduce",
        "figure4",
        "--tasks",
        "RepeatFirstEasy",
        "--memories",
        "lru",
        "--segment-lengths",
        "10",
        "--seeds",
        "1",
        "--train-episodes",
        "40",
    ]
    bad, good = "RepeatFirstEasy-lru-TBB-seed0", "RepeatFirstEasy-lru-SBB-L10-seed0"
    (tmp_path / "runs" / "orders.json").write_text(json.dumps({bad: "refuse"}))
    with pytest.raises(SystemExit) as stop:
        main([*asked, "--jobs", "1"])
    said = capsys.readouterr()
    root = Path("runs") / "figure4-laptop"
    assert stop.value.code == 1
    assert (
        said.err == f"memoroids: some cells failed; the report says which and why: {root / 'report' / 'index.html'}\n"
    )
    assert f"1/2, 1 failed: {bad} failed: {fake_cell.NASTY}" in said.out and f": {good} done in 2 s" in said.out
    page = Page(root / "report" / "index.html")
    assert_whole(page)
    assert fake_cell.NASTY in page.text and "1 of 2 runs done" in page.text

    (tmp_path / "runs" / "orders.json").unlink()
    main([*asked, "--retry"])
    said = capsys.readouterr()
    assert said.err == "" and f"report: {root / 'report' / 'index.html'}\n" in said.out and good not in said.out
    page = Page(root / "report" / "index.html")
    assert "2 of 2 runs done" in page.text and "are missing" not in page.text
    assert "memoroids " + " ".join([*asked, "--jobs", "1"]) in page.text


@pytest.mark.usefixtures("faked")
def test_the_time_of_a_training_episode_is_measured_once_where_anything_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[Any, ...]] = []

    def measure(repeats: int, *, env: str, memories: Sequence[str], lengths: Sequence[int]) -> list[dict[str, Any]]:
        asked.append((env, *memories, *lengths))
        return [{"memory": memories[0], "batching": "TBB", "collect": 1.5, "store": 2}]

    monkeypatch.setattr(timing, "measure", measure)
    monkeypatch.setattr(figures, "draw", lambda found, directory: {})
    choice = Choice("figure5-training", segment_lengths=(20, 10), seeds=1, train_episodes=40)
    orders = tmp_path / "orders.json"
    orders.write_text(json.dumps({cell.name: "refuse" for cell in cells(choice)}))
    root = tmp_path / "grid"
    assert not reproduce(choice, root, jobs=1, retry=False, command="memoroids reproduce")
    assert asked == [] and "Nothing has been run yet" in Page(root / "report" / "index.html").text
    orders.unlink()
    for retry in (True, False):
        assert reproduce(choice, root, jobs=1, retry=retry, command="memoroids reproduce")
        assert asked == [("popgym-RepeatFirstEasy-v0", "lru", 10, 20)]
    assert "RepeatFirstEasy lru TBB 1.500 2" in Page(root / "report" / "index.html").text
