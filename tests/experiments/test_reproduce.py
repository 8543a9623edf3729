"""`memoroids reproduce` from its grid to its report, with cells that train nothing (`fake_cell`)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake_cell
import pytest
from written_grids import Page, assert_self_contained

from memoroids.benchmarks import batching as timing
from memoroids.cli.main import main
from memoroids.experiments import figures
from memoroids.experiments.figure_grids import Choice, cells
from memoroids.experiments.reproduce import Execution, reproduce


@pytest.mark.usefixtures("faked")
def test_a_figure_is_reproduced_from_its_grid_to_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    asked = ["reproduce", "figure4", "--tasks", "RepeatFirstEasy", "--memories", "lru", "--segment-lengths", "10"]
    asked += ["--seeds", "1", "--train-episodes", "40"]
    bad, good = "RepeatFirstEasy-lru-TBB-seed0", "RepeatFirstEasy-lru-SBB-L=10-seed0"
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
    assert_self_contained(page)
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
    assert not reproduce(choice, root, Execution(1, "memoroids reproduce"))
    assert asked == [] and "No run has finished yet" in Page(root / "report" / "index.html").text
    orders.unlink()
    for retry in (True, False):
        assert reproduce(choice, root, Execution(1, "memoroids reproduce", retry=retry))
        assert asked == [("popgym-RepeatFirstEasy-v0", "lru", 10, 20)]
    assert "RepeatFirstEasy lru TBB 1.500 2" in Page(root / "report" / "index.html").text
