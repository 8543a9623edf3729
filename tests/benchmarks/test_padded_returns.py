"""`memoroids bench returns` at tiny sizes: what it measures, that all methods agree, and what it writes."""

import csv
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from memoroids.algebra.recurrence_backends import available_backends, default_backend
from memoroids.benchmarks import padded_returns as bench
from memoroids.cli.main import main

LENGTHS, EPISODES = (3, 6), (2, 5)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return bench.measure(1, LENGTHS, EPISODES)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "LENGTHS", (3,))
    monkeypatch.setattr(bench, "EPISODES", (2, 4))


def test_there_is_a_row_for_everything_that_is_compared(rows: list[dict[str, Any]]):
    keys = ("quantity", "max_length", "episodes", "method")
    expected = itertools.product(("discounted return", "gae"), LENGTHS, EPISODES, bench.METHODS)
    assert [tuple(row[key] for key in keys) for row in rows] == list(expected)
    for row in rows:
        assert tuple(row) == bench.FIELDS
        assert row["episodes"] <= row["transitions"] <= row["episodes"] * row["max_length"]


def test_only_what_is_slow_is_left_out_and_ratios_are_to_ours(rows: list[dict[str, Any]]):
    for start in range(0, len(rows), len(bench.METHODS)):
        of = {row["method"]: row for row in rows[start : start + len(bench.METHODS)]}
        ours = of[default_backend()]
        for method, row in of.items():
            if method == "associative" and row["episodes"] < max(EPISODES) and np.isnan(row["ms"]):
                continue
            assert row["ms"] > 0 and row["ratio"] == pytest.approx(row["ms"] / ours["ms"])
            assert np.isnan(row["compile_s"]) == (method in ("padding", "python loop"))
            assert np.isnan(row["difference"]) == (method in ("padding", "copy"))


def test_every_method_gives_the_same(rows: list[dict[str, Any]]):
    for quantity in ("discounted return", "gae"):
        compared = [row for row in rows if row["quantity"] == quantity and not np.isnan(row["difference"])]
        assert {row["method"] for row in compared} == {*available_backends(), "flat loop", "padded loop", "python loop"}
        assert max(row["difference"] for row in compared) <= 1e-5


def test_the_episodes_are_ragged_and_end_both_ways():
    lengths, arrays = bench._batch(7, 200)
    assert set(lengths) == set(range(1, 8))
    last = np.cumsum(lengths) - 1
    np.testing.assert_array_equal(np.flatnonzero(arrays["terminated"] | arrays["truncated"]), last)
    assert arrays["terminated"].sum() > 50 and arrays["truncated"].sum() > 50
    assert not (arrays["terminated"] & arrays["truncated"]).any()


def test_padding_puts_each_episode_in_a_column_of_its_own():
    values = np.arange(1, 7, dtype=np.float32)
    (padded,) = bench._padded((values,), np.arange(3) < np.array([1, 3, 2])[:, None])
    np.testing.assert_array_equal(padded, [[1, 2, 5], [0, 3, 6], [0, 4, 0]])


@pytest.mark.parametrize("name", ["discounted_return", "gae"])
def test_a_method_that_gives_something_else_is_not_timed(name: str, monkeypatch: pytest.MonkeyPatch):
    right: Callable[..., Any] = getattr(bench, name)
    monkeypatch.setattr(bench, name, lambda *args, **options: right(*args, **options) + 0.01)
    monkeypatch.setattr(bench, "medians", lambda *args: pytest.fail("timed"))
    quantity = next(q for q in bench.QUANTITIES if q.name.replace(" ", "_") == name)
    with pytest.raises(RuntimeError, match=r"differ by 0\.01"):
        bench._case(quantity, 3, 2, 1, largest=False)


def test_what_would_take_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "PYTHON_BUDGET", 0)
    of = {row["method"]: row for row in bench._case(bench.QUANTITIES[0], 3, 2, 1, largest=False)}
    assert np.isnan(of["python loop"]["ms"]) and np.isnan(of["python loop"]["ratio"])
    assert "-" in bench._figure(of["python loop"])
    assert of["padded loop"]["ms"] > 0


def test_the_default_backend_and_its_rivals_are_measured_at_every_size(monkeypatch: pytest.MonkeyPatch):
    for platform, slow in (("cpu", {"associative"}), ("gpu", {"sequential", "flat loop"})):
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        left_out = {method for method in bench.METHODS if not bench._sensible(method, 10**6, largest=False)}
        assert left_out == slow | {"python loop"} and default_backend() not in left_out
    assert all(bench._sensible(method, 1_000, largest=True) for method in bench.METHODS)


def test_the_table_and_the_figure_are_written_where_they_are_asked_for(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "new" / "place"
    main(["bench", "returns", "--repeats", "1", "--output", str(output)])
    said = capsys.readouterr().out
    for name in (*bench.METHODS, "discounted return", "gae", "greatest difference"):
        assert name in said
    assert sorted(path.name for path in output.iterdir()) == ["returns.csv", "returns.pdf", "returns.png"]
    with (output / "returns.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames or ()) == bench.FIELDS
        assert len(list(reader)) == 2 * 1 * 2 * len(bench.METHODS)
    picture = (output / "returns.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n") and len(picture) > 10_000


def test_nothing_is_written_where_no_place_is_named(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    main(["bench", "returns", "--repeats", "1"])
    assert list(tmp_path.iterdir()) == []


def test_a_place_for_a_benchmark_that_writes_nothing_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "update", "--output", "here"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "returns only" in said and said.count("\n") == 1
