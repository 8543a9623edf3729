"""One cell of a grid: a real run from its settings to its sensitivity, and how failures are reported."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memoroids.experiments import cell, cell_process, results, runner
from memoroids.experiments.executors import Local
from memoroids.experiments.figure_grids import Choice
from memoroids.experiments.grid import Cell
from memoroids.runs import metrics
from memoroids.runs import train as training
from memoroids.runs.progress import Outcome, Progress
from memoroids.runs.run_directory import load_config
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import to_json


def settings(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "env": "popgym-RepeatPreviousEasy-v0",
        "env_options": {"k": 2},
        "memory": "mlp",
        "batching": "segments",
        "segment_length": 10,
        "width": 8,
        "random_episodes": 3,
        "updates_per_episode": 1,
        "checkpoint_every": 500,
        "train_episodes": 4,
        "batch_size": 40,
        "buffer_size": 1_000,
        "num_envs": 1,
        "eval_every": 2,
        "eval_episodes": 2,
        "final_episodes": 2,
        "sensitivity_every": 2,
    }
    return TrainConfig.of(**values | changes)


def place(tmp_path: Path, config: TrainConfig) -> Path:
    (tmp_path / "cell").mkdir(parents=True)
    (tmp_path / "cell" / "settings.json").write_text(to_json(config) + "\n")
    return tmp_path / "cell"


def end_of(directory: Path) -> Any:
    return json.loads((directory / "cell.json").read_text())


def test_a_cell_is_trained_measured_and_done(tmp_path: Path):
    config = settings()
    found = Cell("one", "RepeatPrevious k=2", "mlp", "SBB L=10", 0, config)
    root = tmp_path / "grid"
    runner.prepare(root, Choice("figure3"), [found], "memoroids reproduce figure3")
    directory = cell_process.cell_dir(root, found)
    directory.mkdir(parents=True)
    (directory / "settings.json").write_text(to_json(config) + "\n")
    cell.main(directory)

    assert end_of(directory)["status"] == "done" and end_of(directory)["seconds"] > 0
    run = directory / "run"
    assert {path.name for path in run.iterdir()} >= {
        "config.json",
        "metrics.csv",
        "summary.json",
        "sensitivity.csv",
        "sensitivity.json",
        "sensitivity.png",
        "sensitivity_training.csv",
    }
    assert load_config(run) == config.replace(target_return=0.95)
    rows = metrics.read(run / "metrics.csv")
    assert [row["episode"] for row in rows] == [2, 4]
    # 51 steps make five segments of 10 and one of 1, which is padded.
    assert 0 < rows[-1]["transitions"] < rows[-1]["slots"]

    (read,) = results.load(root).runs
    assert read.cell == found
    assert read.sensitivity is not None and (read.sensitivity["rml"], read.sensitivity["episodes"]) == (1, 2)
    # Without memory only the last observation matters.
    assert read.profile is not None and len(read.profile) == 51
    np.testing.assert_array_equal(read.profile, np.eye(51)[0])
    assert read.sensitivity["beyond_segment"] == {"10": 0.0}
    np.testing.assert_array_equal(read.column("eval_return"), [row["eval_return"] for row in rows])


def test_a_cell_that_cannot_be_made_says_why_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    directory = place(tmp_path, settings(env_options={"decks": 2}))
    with pytest.raises(SystemExit) as stop:
        cell.main(directory)
    assert stop.value.code == 1
    end = end_of(directory)
    assert end["status"] == "failed" and end["reason"].startswith("ValueError: cannot make environment")
    assert "decks" in end["reason"] and "\n" not in end["reason"]
    assert capsys.readouterr().err == end["reason"] + "\n"
    assert not (directory / "run").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"env": 3}'])
def test_settings_that_cannot_be_read_are_a_failure_too(text: str, tmp_path: Path):
    directory = place(tmp_path, settings())
    (directory / "settings.json").write_text(text)
    with pytest.raises(SystemExit) as stop:
        cell.main(directory)
    assert stop.value.code == 1 and end_of(directory)["status"] == "failed"


def test_an_error_that_nobody_foresaw_leaves_its_traceback_in_the_log_and_its_line_as_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def train(config: TrainConfig, run_dir: Path, *, resume: bool) -> Outcome:
        raise ZeroDivisionError("divided\nby nothing")

    monkeypatch.setattr(training, "train", train)
    directory = place(tmp_path, settings())
    with pytest.raises(SystemExit) as stop:
        cell.main(directory)
    assert stop.value.code == 1
    assert end_of(directory) == {"status": "failed", "reason": "ZeroDivisionError: divided by nothing"}
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and said.endswith("\nZeroDivisionError: divided by nothing\n")


def test_a_cell_that_is_interrupted_has_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "train", lambda config, run_dir, resume: Outcome(None, [], run_dir, config))
    directory = place(tmp_path, settings())
    with pytest.raises(SystemExit) as stop:
        cell.main(directory)
    assert stop.value.code == cell.INTERRUPTED
    assert not (directory / "cell.json").exists()


def test_a_cell_is_run_in_a_process_of_its_own(tmp_path: Path):
    """Only up to its first error, because a complete run takes long."""
    found = Cell("one", "RepeatPrevious", "mlp", "SBB L=10", 0, settings(env_options={"decks": 2}))
    root = tmp_path / "grid"
    runner.prepare(root, Choice("figure3"), [found], "memoroids reproduce figure3")
    runner.run(root, [found], executor=Local(1), watch=lambda moment: None)
    end = cell_process.status(root, found)
    assert end is not None and end["reason"].startswith("ValueError: cannot make environment")
    assert (cell_process.cell_dir(root, found) / "log.txt").read_text() == end["reason"] + "\n"


def test_cells_that_share_a_program_are_all_done_and_those_that_cannot_have_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shape = {"env": "device:RepeatPreviousEasy", "env_options": {}, "batching": "tape", "sensitivity_every": 0}
    directories = [place(tmp_path / str(seed), settings(**shape, seed=seed)) for seed in (2, 5)]
    cell.main(*directories)
    for directory in directories:
        assert end_of(directory)["status"] == "done" and end_of(directory)["seconds"] > 0
        assert [row["episode"] for row in metrics.read(directory / "run" / "metrics.csv")][-1] >= 4

    others = [place(tmp_path / f"other{width}", settings(**shape, width=width)) for width in (8, 4)]
    with pytest.raises(SystemExit) as stop:
        cell.main(*others)
    assert stop.value.code == 1 and "differ in seeds and numbers of the agent" in capsys.readouterr().err
    assert not any((directory / "cell.json").exists() for directory in others)


@pytest.mark.slow
def test_a_cell_that_was_begun_goes_on_and_ends_as_one_that_was_not_interrupted(tmp_path: Path):
    config = settings()
    training.train(config, tmp_path / "whole")
    directory = place(tmp_path, config)

    def stop(progress: Progress) -> None:
        if progress.row is not None:
            signal.raise_signal(signal.SIGINT)

    assert training.train(config, directory / "run", watch=stop).final is None
    cell.main(directory)
    assert end_of(directory)["status"] == "done"
    whole, parts = (metrics.read(path / "metrics.csv") for path in (tmp_path / "whole", directory / "run"))
    assert [{k: v for k, v in row.items() if k not in metrics.TIMES} for row in parts] == [
        {k: v for k, v in row.items() if k not in metrics.TIMES} for row in whole
    ]
