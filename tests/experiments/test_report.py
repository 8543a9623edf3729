"""The files of a report, and the command that writes it. The runs are those of `written_grids`."""

import csv
import dataclasses
from pathlib import Path

import pytest
from written_grids import CHOICE, Page, assert_self_contained, make

from memoroids.cli.main import main
from memoroids.experiments import report, tables
from memoroids.experiments.figure_grids import Choice
from memoroids.experiments.results import Results


def test_a_report_is_a_page_with_its_figures_and_tables_beside_it(complete: tuple[Path, Results]):
    directory = complete[0] / "report"
    assert {path.name for path in directory.iterdir()} == {"index.html", "figures", "tables"}
    assert {path.name for path in (directory / "tables").iterdir()} == {f"{name}.csv" for name in tables.TABLES}
    drawn = {path.name for path in (directory / "figures").iterdir()}
    names = {f"{what}-{task}" for what in ("curves", "sensitivity") for task in ("RepeatFirstEasy", "CountRecallEasy")}
    assert drawn == {f"{name}.{kind}" for name in names | {"comparison"} for kind in ("png", "pdf")}
    for path in (directory / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG" if path.suffix == ".png" else b"%PDF")
    with (directory / "tables" / "tape_against_segments.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = tables.against_segments(complete[1])
    assert rows == [{name: str(value) for name, value in row.items()} for row in expected]


def test_a_grid_that_was_never_run_gives_a_page_too(tmp_path: Path):
    make(tmp_path / "grid", CHOICE, lambda cell, path: None)
    page = Page(report.write(tmp_path / "grid"))
    assert_self_contained(page)
    assert "0 of 18 runs done" in page.text and "18 runs are missing" in page.text
    assert "No run has finished yet" in page.text
    written_tables = {path.stem: path.read_text() for path in (tmp_path / "grid" / "report" / "tables").iterdir()}
    assert {name for name, text in written_tables.items() if text} == {"runs"}
    assert list((tmp_path / "grid" / "report" / "figures").iterdir()) == []


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


def parts(tmp_path: Path) -> list[Path]:
    """Two grids of one figure with different tasks, and one with a run of the first."""
    choices = [dataclasses.replace(CHOICE, tasks=(task,)) for task in ("RepeatFirstEasy", "CountRecallEasy")]
    for name, choice in zip(("a", "b", "c"), (*choices, dataclasses.replace(choices[0], seeds=1)), strict=True):
        make(tmp_path / name, choice)
    return [tmp_path / name for name in ("a", "b", "c")]


def test_grids_of_one_figure_are_reported_together_as_one_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second, _ = parts(tmp_path)
    make(tmp_path / "whole", CHOICE)
    report.write(tmp_path / "whole")
    main(["report", str(first), "--join", str(second), "--output", str(tmp_path / "both")])
    assert capsys.readouterr().out == f"{tmp_path / 'both' / 'index.html'}\n"
    whole = tmp_path / "whole" / "report" / "tables"
    for path in (tmp_path / "both" / "tables").iterdir():
        assert sorted(path.read_text().splitlines()) == sorted((whole / path.name).read_text().splitlines()), path.name
    page = Page(tmp_path / "both" / "index.html")
    assert_self_contained(page)
    assert "18 of 18 runs done" in page.text and not (first / "report").exists()


def test_grids_that_do_not_belong_together_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, _, same = parts(tmp_path)
    make(tmp_path / "other", Choice("figure3", seeds=1), lambda cell, path: None)
    for others, says in (
        (["--join", str(same), "--output", "x"], "is a run of several of these grids"),
        (["--join", str(tmp_path / "other"), "--output", "x"], "is a grid of figure3 at scale laptop"),
        (["--join", str(same)], "join needs an output"),
        (["--join", str(tmp_path), "--output", "x"], "holds no grid"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["report", str(first), *others])
        said = capsys.readouterr().err
        assert stop.value.code == 2 and says in said and said.count("\n") == 1
    assert not Path("x").exists()
