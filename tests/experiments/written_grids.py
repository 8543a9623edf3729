"""Grids of `fake_cell`'s runs, written to disk with known scores, and their report's page as text."""

import html.parser
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import fake_cell

from memoroids.experiments import cell_process, runner
from memoroids.experiments.figure_grids import Choice, cells
from memoroids.experiments.grid import Cell
from memoroids.runs.settings_file import to_json

CHOICE = Choice(
    "figure4",
    tasks=("RepeatFirstEasy", "CountRecallEasy"),
    memories=("lru",),
    segment_lengths=(100, 10),
    seeds=3,
    train_episodes=40,
)
FIRST, COUNT = ("RepeatFirstEasy", "lru"), ("CountRecallEasy", "lru")
# By pair and batching, for three seeds: the first point of the learning curve.
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
"""Sensitivity by age: 0.2 beyond age 2, all of it at age 10 or older, and 0.1 at age 100."""

Write = Callable[[Cell, Path], None]


def written(cell: Cell, directory: Path, returns: Sequence[float] | None = None, **options: Any) -> None:
    """Writes a finished run with the level of its group and seed, unless `returns` are given."""
    if returns is None:
        level = LEVELS[cell.task, cell.memory, cell.batching][cell.seed]
        returns = [level + rise for rise in RISE]
    directory.mkdir(parents=True)
    (directory / "settings.json").write_text(to_json(cell.config) + "\n")
    fake_cell.write_run(directory, json.loads(to_json(cell.config)), returns, **({"share": SHARE} | options))


def failed(directory: Path, cell: Cell, reason: str) -> None:
    """Writes a cell that failed."""
    directory.mkdir(parents=True)
    (directory / "settings.json").write_text(to_json(cell.config) + "\n")
    fake_cell.finish(directory, {"status": "failed", "reason": reason})


def make(
    root: Path, choice: Choice, write: Write = written, command: str = "memoroids reproduce figure4"
) -> list[Cell]:
    """Writes a grid with `write` for each of its cells, which may leave some out."""
    found = cells(choice)
    runner.prepare(root, choice, found, command)
    for cell in found:
        write(cell, cell_process.cell_dir(root, cell))
    return found


def only(rows: Iterable[dict[str, Any]], **values: Any) -> dict[str, Any]:
    """The one row with these values."""
    (row,) = (row for row in rows if all(row[name] == value for name, value in values.items()))
    return row


class Page(html.parser.HTMLParser):
    """An HTML page: the addresses it loads, its tags and its text."""

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


def assert_self_contained(page: Page) -> None:
    """The page loads nothing from elsewhere, is a complete document, and shows no NaN, infinity or None."""
    assert all(address.startswith("data:image/png;base64,") for address in page.loaded)
    assert "url(" not in page.source and "@import" not in page.source
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert page.source.startswith("<!doctype html>") and page.source.endswith("</body></html>\n")
    assert not re.search(r"\b(nan|NaN|inf|None)\b", page.text)
