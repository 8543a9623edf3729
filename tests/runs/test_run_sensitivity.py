"""`memoroids sensitivity`: what it measures on a run, prints and writes."""

import csv
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from memoroids.acting.evaluation import Evaluation, Evaluator
from memoroids.analysis.sensitivity import Profile
from memoroids.cli.main import main
from memoroids.runs.load import load
from memoroids.runs.run_sensitivity import Measured, report
from memoroids.runs.seeds import REPORT, environment_seeds
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import to_json
from profiles import assert_picture, by_steps, profile_of


def test_the_report_names_segments_that_the_run_was_trained_on():
    profile = profile_of(*[1.0] * 20)
    tape = report(Measured(TrainConfig(), profile, None))
    assert tape["beyond_segment"] == pytest.approx({"10": 0.5, "20": 0.0, "50": 0.0, "100": 0.0})
    assert tape["rml"] is None and tape["beyond_rml"] is None
    config = TrainConfig.of(batching="segments", segment_length=4)
    segments = report(Measured(config, profile, math.inf))
    assert segments["beyond_segment"] == pytest.approx({"4": 0.8})
    assert (segments["rml"], segments["beyond_rml"]) == ("episode", 0.0)
    assert report(Measured(config, profile, 3))["beyond_rml"] == pytest.approx(0.8)
    assert segments["vml"] == {"0.5": 9, "0.95": 18, "0.99": 19}
    assert segments["first_share"] == pytest.approx(0.05)


def tiny(run: Path, *options: str) -> None:
    sizes = {"width": 8, "random-episodes": 3, "train-episodes": 4, "batch-size": 10, "buffer-size": 300, "num_envs": 1}
    sizes |= {"eval-episodes": 2, "final-episodes": 2, "updates-per-episode": 0}
    main(["train", *[f"--{name}={size}" for name, size in sizes.items()], "--run-dir", str(run), *options])


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command and returns what it printed, with the spaces folded, or the one line it failed with."""

    def run(*argv: str, code: int = 0) -> str:
        capsys.readouterr()
        if not code:
            main(argv)
        else:
            with pytest.raises(SystemExit) as stop:
                main(argv)
            assert stop.value.code == code
        out, err = capsys.readouterr()
        assert not (err if code == 0 else out) and err.count("\n") == (code != 0)
        return " ".join((out + err).split())

    return run


def test_a_run_is_measured_from_the_command_line(said: Callable[..., str], tmp_path: Path):
    run, out = tmp_path / "run", tmp_path / "else" / "where"
    tiny(run, "--env", "RepeatPreviousEasy", "--memory", "gru")
    text = said("sensitivity", str(run), "--episodes", "4", "--seed", "1", "--output", str(out))
    assert sorted(path.name for path in out.iterdir()) == ["sensitivity.csv", "sensitivity.json", "sensitivity.png"]
    assert not [path for path in run.iterdir() if path.name.startswith("sensitivity")]

    config, parts, params = load(run)
    evaluator = Evaluator(parts.eval_envs, parts.agent.act, parts.network.initial_state())
    seeds = environment_seeds(config.seed, REPORT, 1)
    played = evaluator.play(params, 4, seeds)
    shares = [by_steps(parts.agent.network(params), e.tape) for e in played]
    expected = np.zeros(max(e.length for e in played))
    for share in shares:
        expected[: len(share)] += share / share.sum() / 4
    rows = list(csv.DictReader((out / "sensitivity.csv").read_text().splitlines()))
    assert [int(row["age"]) for row in rows] == list(range(len(expected)))
    np.testing.assert_allclose([float(row["share"]) for row in rows], expected, rtol=1e-3)
    np.testing.assert_allclose([float(row["cumulative"]) for row in rows], np.cumsum(expected), rtol=1e-3)

    found = json.loads((out / "sensitivity.json").read_text())
    assert (found["episodes"], found["left_out"], found["rml"]) == (4, 0, 3)
    assert found["beyond_rml"] == pytest.approx(expected[4:].sum(), rel=1e-3)
    assert found["vml"]["0.95"] == int(np.argmax(np.cumsum(expected) >= 0.95))
    beyond = {length: expected[int(length) :].sum() for length in ("10", "20", "50", "100")}
    assert found["beyond_segment"] == pytest.approx(beyond, rel=1e-3, abs=1e-9)
    assert found["first_share"] == pytest.approx(np.mean([s[-1] / s.sum() for s in shares]), rel=1e-3)
    assert_picture(out / "sensitivity.png")
    assert "4 greedy episodes" in text and "(RML) 3 observations back" in text and str(out) in text
    assert re.search(rf"\(VML\) \d+ \(50%\), {found['vml']['0.95']} \(95%\), \d+ \(99%\) back", text)
    assert f"first observation {found['first_share']:.2%}" in text

    assert_evaluation(Evaluation.of(played), evaluator(params, 4, seeds).greedy)


def assert_evaluation(left: Evaluation, right: Evaluation) -> None:
    np.testing.assert_array_equal(left.returns, right.returns)
    np.testing.assert_array_equal(left.lengths, right.lengths)


@pytest.mark.parametrize(
    ("rml", "words"),
    [
        (None, ["not known for this environment"]),
        (math.inf, ["the whole episode", "beyond the RML 0.00%"]),
        (0, ["0 observations back", "beyond the RML 75.00%"]),
    ],
    ids=str,
)
def test_what_is_found_is_printed_beside_what_the_environment_asks(
    rml: float | None, words: list[str], said: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = TrainConfig.of(memory="ffm", batching="segments", segment_length=2)
    measured = Measured(config, Profile(np.full(4, 0.25), 0.125, 20, 3), rml)
    monkeypatch.setattr("memoroids.runs.run_sensitivity.measure", lambda *_: measured)
    (tmp_path / "config.json").write_text(to_json(config))
    text = said("sensitivity", str(tmp_path))
    expected = ["ffm", "left out: 3 episodes", "1 (50%), 3 (95%), 3 (99%) back", "first observation 12.50%", *words]
    assert all(word in text for word in [*expected, "segments of 2 50.00%"])
    assert ("beyond the RML" in text) == (rml is not None)
    rows = (tmp_path / "sensitivity.csv").read_text().splitlines()
    assert rows == ["age,share,cumulative", "0,0.25,0.25", "1,0.25,0.5", "2,0.25,0.75", "3,0.25,1.0"]
    assert json.loads((tmp_path / "sensitivity.json").read_text())["rml"] == ("episode" if rml == math.inf else rml)
    (tmp_path / "taken").touch()
    assert "taken" in said("sensitivity", str(tmp_path), "--output", str(tmp_path / "taken"), code=1)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nowhere"], ["nowhere holds no run"]),
        ([], ["sensitivity", "--help"]),
        (["run", "--episodes", "0"], ["episodes", "at least 1"]),
        (["run", "--seed=-1"], ["seed", "at least 0"]),
    ],
    ids=str,
)
def test_a_command_that_cannot_be_run_is_answered_in_one_line(
    argv: Sequence[str], words: Sequence[str], said: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    answer = said("sensitivity", *argv, code=2)
    assert answer.startswith("memoroids: ") and all(word in answer for word in words)
    assert list(tmp_path.iterdir()) == []


def test_the_command_is_listed(said: Callable[..., str]):
    assert " sensitivity Measure how far back" in said("--help")
