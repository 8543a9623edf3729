"""Metrics: rows in a file that another run can go on with, a curve, and loggers on request."""

import math
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from memoroids.runs.metrics import FIELDS, Loggers, MetricsFile, draw_curve, read


def row(episode: int, **changes: float) -> dict[str, float]:
    return {name: episode + i / 8 for i, name in enumerate(FIELDS)} | {"episode": episode} | changes


ROWS = [row(10), row(20, loss=math.inf, eval_return=-0.5), row(30, eval_return=1 / 3)]


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


@pytest.mark.parametrize(
    "rows", [ROWS[:1], ROWS, [row(10, train_return=math.nan)]], ids=["one row", "several", "no number"]
)
def test_the_curve_is_a_picture(rows: list[dict[str, float]], tmp_path: Path):
    path = tmp_path / "curve.png"
    draw_curve(path, rows, "popgym-RepeatFirstEasy-v0, lru, seed 0")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.stat().st_size > 5_000


def test_another_curve_is_another_picture(tmp_path: Path):
    draw_curve(tmp_path / "one.png", ROWS, "title")
    draw_curve(tmp_path / "two.png", [row(10), row(20, eval_return=5.0)], "title")
    draw_curve(tmp_path / "three.png", ROWS, "title")
    one, two, three = ((tmp_path / f"{name}.png").read_bytes() for name in ("one", "two", "three"))
    assert one != two and one == three


def test_tensorboard_events_hold_every_column(tmp_path: Path):
    loggers = Loggers(tmp_path, {}, tensorboard=True, wandb=False)
    for values in ROWS:
        loggers.write(values)
    loggers.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert all(name.encode() in content for name in FIELDS)
    assert content.count(b"eval_return") >= len(ROWS)


def test_nothing_is_written_where_no_logger_is_asked_for(tmp_path: Path):
    loggers = Loggers(tmp_path, {}, tensorboard=False, wandb=False)
    loggers.write(ROWS[0])
    loggers.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_logger_that_is_not_installed_is_answered_with_how_to_install_it(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError) as error:
        Loggers(tmp_path, {}, tensorboard=name == "tensorboard", wandb=name == "wandb")
    message = str(error.value)
    assert f"--{name}" in message and f"pip install 'memoroids[{name}]'" in message and "\n" not in message


def test_weights_and_biases_gets_every_row_at_its_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Fake:
        """What of wandb is called."""

        def __init__(self):
            self.started: dict[str, Any] = {}
            self.logged: list[tuple[dict[str, float], int]] = []
            self.finished = False

        def init(self, **options: Any) -> "Fake":
            self.started = options
            return self

        def log(self, values: dict[str, float], step: int) -> None:
            self.logged.append((values, step))

        def finish(self) -> None:
            self.finished = True

    fake = Fake()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    loggers = Loggers(tmp_path, {"seed": 3}, tensorboard=False, wandb=True)
    for values in ROWS:
        loggers.write(values)
    loggers.close()
    assert fake.started["config"] == {"seed": 3} and str(tmp_path) in str(fake.started["dir"])
    assert fake.logged == [(values, int(values["episode"])) for values in ROWS]
    assert fake.finished
