"""Fixtures of the tests of grids: a complete grid with its report, and cells that train nothing."""

from pathlib import Path

import fake_cell
import pytest
from written_grids import CHOICE, make

from memoroids.experiments import cell_launch, report, results, runner
from memoroids.experiments.results import Results


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """The directory and results of a grid of two pairs, three batchings and three seeds, all done, with its report."""
    root = tmp_path_factory.mktemp("complete") / "grid"
    make(root, CHOICE)
    report.write(root)
    return root, results.load(root)


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells run `fake_cell` instead of training."""
    monkeypatch.setattr(cell_launch, "CELL_PROGRAM", fake_cell.PROGRAM)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.02)
