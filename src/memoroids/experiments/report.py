"""Writes the report of a grid: a self-contained HTML page, with figures and tables as files beside it."""

from collections.abc import Sequence
from pathlib import Path

from memoroids._util.provenance import environment
from memoroids.experiments import (
    figures,
    observability,
    observability_report,
    results,
    scoreboard,
    suite,
    suite_report,
    tables,
)
from memoroids.experiments.report_html import document, escape, picture, table
from memoroids.experiments.report_page import grid_page

REPORT = "report"
PAGE = "index.html"
SPLIT = "split.csv"
"""The time of each part of a training episode, measured separately from the runs; only some grids have it."""


def write(root: Path, directory: Path | None = None) -> Path:
    """Writes index.html, figures/*.png and *.pdf and tables/*.csv to `directory`, `root`/report if it is None.

    Returns the path of the page.
    The page of an unfinished grid lists the missing runs. Of the suite and of an environment with its twin, only a
    table is written, suite.md and .csv, gap.md and .csv.

    Raises `ValueError` if `root` holds no grid, or one of another version of memoroids.
    """
    found = results.load(root)
    directory = directory or root / REPORT
    if found.grid["choice"]["figure"] == suite.NAME:
        return suite_report.write(found, root, directory)
    if found.grid["choice"]["figure"] == observability.NAME:
        return observability_report.write(found, directory)
    return _write_page(found, directory, tables.read(root / SPLIT) if (root / SPLIT).exists() else [])


def write_joined(roots: Sequence[Path], directory: Path, kept: Path | None = None) -> Path:
    """Writes the report of several grids of one figure, as `write` does, to `directory`. Returns the path of the page.

    `kept`: a file of records (`records.csv` of an earlier report of POPGym's tasks), whose runs are compared with what
    was published too. Raises `ValueError` as `results.join`, for grids whose report is a table and no page, and for
    records of another figure or of none.
    """
    found = results.join(roots)
    figure = found.grid["choice"]["figure"]
    if kept is not None:
        if figure != "popgym":
            raise ValueError(f"{kept}: records are of POPGym's tasks, and {roots[0]} is a grid of {figure}")
        found = found._replace(kept=scoreboard.read_records(kept))
    if figure in (suite.NAME, observability.NAME):
        raise ValueError(f"{roots[0]} is a grid of {figure}, which cannot be joined with others")
    return _write_page(found, directory, [])


def _write_page(found: results.Results, directory: Path, split: list[tables.Row]) -> Path:
    (directory / "tables").mkdir(parents=True, exist_ok=True)
    rows = {name: make(found) for name, make in tables.TABLES.items()}
    if split:
        rows["split"] = split
    for name, each in rows.items():
        tables.write(each, directory / "tables" / f"{name}.csv")
    captions = figures.draw(found, directory / "figures")
    page = directory / PAGE
    page.write_text(grid_page(found, rows, captions, directory), encoding="utf-8")
    return page


def write_returns(root: Path, command: str) -> Path:
    """Writes `root`/index.html from the benchmark's returns.csv and returns.png there. Returns the path of the page."""
    rows = tables.read(root / "returns.csv")
    parts = [
        "<h1>Wall-clock of returns and advantages</h1>",
        "<p>Discounted returns and generalised advantages (GAE) of many episodes of different lengths. Memoroids scan "
        "one tape that holds all episodes (sequential and associative: two backends of the same scan). For comparison: "
        "one loop over the same tape; a loop over time, vectorised over episodes that are padded to the same length, "
        "and the padding itself; a Python loop, episode by episode, which the paper calls the standard one; and a copy "
        "of the same number of bytes, a lower bound. Ratios are relative to ours. Methods that are too slow are left "
        "out.</p>",
        picture(root / "returns.png", "Time against the number of episodes, for each maximum episode length."),
        table(rows),
        "<h2>How this was made</h2>",
        f"<pre>{escape(command)}</pre>",
        table([{"what": name, "value": value} for name, value in environment().items()]),
    ]
    page = root / PAGE
    page.write_text(document("Wall-clock of returns and advantages", parts), encoding="utf-8")
    return page
