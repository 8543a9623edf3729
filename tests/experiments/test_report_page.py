"""The page of a report: claims, missing runs and settings, all in one file. The runs are those of `written_grids`."""

import dataclasses
import re
from pathlib import Path

from written_grids import CHOICE, COUNT, FIRST, Page, assert_self_contained, failed, make, only, written

from memoroids.experiments import report, results, tables
from memoroids.experiments.grid import Cell
from memoroids.experiments.results import Results


def test_a_page_is_self_contained_and_says_what_was_found(complete: tuple[Path, Results]):
    page = Page(complete[0] / "report" / "index.html")
    assert_self_contained(page)
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
    # The claim about beyond L is made only for segments of the same length L.
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
    same = page.text.partition("Common to all runs: ")[2].partition(". ")[0]
    assert "segment_state stored" in same and "segment_count transitions" in same and "train_episodes 40" in same
    assert not re.search(r"batching tape|segment_length|\bseed\b", same)


def test_a_grid_of_one_seed_has_numbers_and_no_intervals(tmp_path: Path):
    make(tmp_path / "grid", dataclasses.replace(CHOICE, tasks=FIRST[:1], seeds=1))
    page = Page(report.write(tmp_path / "grid"))
    assert_self_contained(page)
    assert (
        "undecided , difference of mean return over training 0.500, between runs with the same seed 0.500, probability"
        in page.text
    )
    assert "confirmed , difference" not in page.text and "contradicted , difference" not in page.text
    assert "[" not in page.text.partition("Returns")[2].partition("How this was made")[0]
    assert not (tmp_path / "grid" / "report" / "figures" / "comparison.png").exists()


def test_an_unfinished_grid_lists_its_gaps_with_their_reasons(tmp_path: Path):
    nasty = 'ValueError: <script>alert("&")</script>'

    def write(cell: Cell, path: Path) -> None:
        if cell.seed == 0 and cell.batching != "SBB L=100":
            # Some panels lack lines that others have.
            if (cell.task, cell.batching) != (COUNT[0], "TBB"):
                written(cell, path)
        elif cell.seed == 0:
            failed(path, cell, nasty)
        elif cell.seed == 1:
            written(cell, path)
            (path / "cell.json").unlink()

    make(tmp_path / "grid", CHOICE, write, command="memoroids reproduce figure4 --output '<b>&'")
    page = Page(report.write(tmp_path / "grid"))
    assert_self_contained(page)
    assert "3 of 18 runs done" in page.text and "15 runs are missing" in page.text
    assert f"CountRecallEasy lru SBB L=100 0 {nasty}" in page.text
    assert "CountRecallEasy lru SBB L=100 1 not finished" in page.text
    assert "CountRecallEasy lru TBB 0 not run yet" in page.text
    assert "--output '<b>&'" in page.text and "b" not in page.tags
    rows = tables.runs(results.load(tmp_path / "grid"))
    assert only(rows, task="CountRecallEasy", batching="SBB L=100", seed=0)["status"] == nasty
    assert only(rows, task="CountRecallEasy", batching="SBB L=100", seed=0)["final"] == ""


def test_one_pair_with_one_way_of_batching_has_nothing_to_compare(tmp_path: Path):
    choice = dataclasses.replace(CHOICE, tasks=FIRST[:1], segment_lengths=(), seeds=2)
    make(tmp_path / "grid", choice, lambda cell, path: written(cell, path, share=None))
    page = Page(report.write(tmp_path / "grid"))
    assert_self_contained(page)
    assert page.tags.count("img") == 1
    for absent in ("The paper's claims", "Tapes against segments Difference", "Over all pairs", "How far back the val"):
        assert absent not in page.text


def test_a_page_says_nothing_of_a_reward_memory_length_that_is_not_known(tmp_path: Path):
    choice = dataclasses.replace(CHOICE, tasks=FIRST[:1], segment_lengths=(10,), seeds=2)
    make(tmp_path / "grid", choice, lambda cell, path: written(cell, path, rml=None))
    page = Page(report.write(tmp_path / "grid"))
    assert_self_contained(page)
    assert "lies beyond L=10" in page.text and "lies beyond RML" not in page.text
