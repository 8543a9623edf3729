"""metrics.csv: rows in a file that a resumed run continues."""

import math
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from memoroids.runs.metrics import FIELDS, MetricsFile, mean_rows, read
from metric_rows import ROWS, row


def upto(path: Path, rows: int) -> int:
    """Bytes of the header and so many rows."""
    return len(b"".join(path.read_bytes().splitlines(keepends=True)[: rows + 1]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    for values in ROWS:
        file.write(values)
    assert file.rows == ROWS
    file.close()
    return path


def test_rows_come_back_as_they_were_written(path: Path):
    assert read(path) == ROWS
    assert path.read_text().splitlines()[0] == ",".join(FIELDS)


def test_a_row_without_a_number_comes_back_without_one(tmp_path: Path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.write(row(10, loss=math.nan))
    file.close()
    (back,) = read(tmp_path / "metrics.csv")
    assert math.isnan(back["loss"])


def test_every_row_is_on_disk_as_soon_as_it_is_written(tmp_path: Path):
    with closing(MetricsFile(tmp_path / "metrics.csv")) as file:
        assert read(tmp_path / "metrics.csv") == []
        for count, values in enumerate(ROWS, start=1):
            file.write(values)
            assert read(tmp_path / "metrics.csv") == ROWS[:count]


def test_going_on_keeps_the_rows_asked_for_and_cuts_the_later_ones(path: Path):
    before = path.read_bytes()
    file = MetricsFile(path, keep=upto(path, 2))
    assert file.rows == read(path) == ROWS[:2]
    file.write(row(25))
    assert file.size == path.stat().st_size
    file.close()
    assert read(path) == [*ROWS[:2], row(25)]
    assert path.read_bytes()[: upto(path, 2)] == before[: upto(path, 2)]


def test_its_size_is_where_going_on_begins(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    with closing(MetricsFile(path)) as file:
        for count, values in enumerate(ROWS, start=1):
            file.write(values)
            assert file.size == upto(path, count) == path.stat().st_size


@pytest.mark.parametrize("off", [-1, 1])
def test_a_place_in_mid_line_is_refused_and_nothing_is_cut(off: int, path: Path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"line"):
        MetricsFile(path, keep=upto(path, 2) + off)
    assert path.read_bytes() == before


def test_a_new_run_starts_with_no_rows(path: Path):
    file = MetricsFile(path)
    file.close()
    assert read(path) == []


@pytest.mark.parametrize("change", [lambda r: r | {"more": 1.0}, lambda r: {"episode": 1.0}], ids=["more", "fewer"])
def test_a_row_of_other_columns_is_refused_and_not_written(change: Any, tmp_path: Path):
    with closing(MetricsFile(tmp_path / "metrics.csv")) as file:
        with pytest.raises(ValueError):
            file.write(change(row(10)))
        assert file.rows == []
    assert read(tmp_path / "metrics.csv") == []


@pytest.mark.parametrize("torn", ["40.0,1.0,2", "40.0,one" + ",0" * (len(FIELDS) - 2)])
def test_a_torn_line_is_named_by_its_number(torn: str, path: Path):
    with path.open("a", newline="") as file:
        file.write(torn)
    with pytest.raises(ValueError) as error:
        read(path)
    message = str(error.value)
    assert str(path) in message and "line 5" in message and "\n" not in message


def test_a_torn_line_among_those_to_be_cut_does_not_keep_a_run_from_going_on(path: Path):
    with path.open("a", newline="") as file:
        file.write("40.0,1.0,2")
    file = MetricsFile(path, keep=upto(path, 2))
    file.close()
    assert read(path) == ROWS[:2]


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", ",".join(FIELDS[:-1]) + "\n"])
def test_a_foreign_file_is_refused_and_left_as_it_was(content: str, tmp_path: Path):
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match="header"):
        read(path)
    with pytest.raises(ValueError, match="header" if content else "holds 0 bytes"):
        MetricsFile(path, keep=len(content) or 1)
    assert path.read_text() == content


def test_means_end_with_the_last_row_that_all_have():
    rows = [[row(10), row(20), row(30)], [row(10, eval_return=0.0), row(22)]]
    mean = mean_rows(rows)
    assert [each["episode"] for each in mean] == [10, 21]
    assert mean[0]["eval_return"] == row(10)["eval_return"] / 2
