"""The figures of a grid that has recorded its sensitivity during training."""

import dataclasses
from pathlib import Path

from written_grids import CHOICE, FIRST, SHARE, make, written

from memoroids.experiments import figures, results
from memoroids.experiments.grid import Cell


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
