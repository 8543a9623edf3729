"""Trials that several processes share: each belongs to one, and those of a dead process go on with their settings."""

import sys
from pathlib import Path

import pytest

from memoroids.experiments.study import Study, worker_number
from memoroids.experiments.tune_file import Range, TuneFile

TUNE = TuneFile(
    "a search",
    trials=4,
    search={"learning_rate": Range(1e-4, 1e-2, log=True), "width": Range(8, 32, step=8), "memory": ["lru", "gru"]},
)


def test_trials_are_claimed_until_there_are_enough_and_the_best_is_kept(tmp_path: Path):
    study, other = Study(tmp_path, TUNE), Study(tmp_path, TUNE)
    claims = [each for pair in range(2) for each in (study.claim(), other.claim())]
    assert [claim and claim.number for claim in claims] == [0, 1, 2, 3]
    assert study.claim() is None and other.claim() is None
    assert study.running() == 4 and study.best() is None
    for value, claim in zip((0.5, 0.75, None, 0.25), claims, strict=True):
        assert claim is not None
        assert 1e-4 <= claim.found["learning_rate"] <= 1e-2 and claim.found["width"] in (8, 16, 24, 32)
        assert claim.found["memory"] in ("lru", "gru")
        study.finish(claim, value)
    assert study.running() == 0 and other.claim() is None
    assert claims[1] is not None and other.best() == (1, 0.75, claims[1].found)
    rows = other.rows()
    assert [(row["state"], row["value"]) for row in rows] == [
        ("complete", 0.5),
        ("complete", 0.75),
        ("fail", ""),
        ("complete", 0.25),
    ]
    assert all(rows[i]["memory"] == claim.found["memory"] for i, claim in enumerate(claims) if claim is not None)


def test_a_trial_whose_process_is_gone_is_claimed_again_with_its_settings_and_its_reports(tmp_path: Path):
    study = Study(tmp_path, TUNE)
    left = study.claim()
    assert left is not None
    left.report(0, 0.5)
    held = Study(tmp_path, TUNE).claim()
    assert held is not None and held.number == 1, "the first is held"
    left.lock.close()  # as when its process ends
    again = Study(tmp_path, TUNE).claim()
    assert again is not None and (again.number, again.found, again.reported) == (0, left.found, {0})
    again.report(0, 0.25)
    again.report(1, 0.75)
    study.finish(again, 1.0)
    held.lock.close()


def test_trials_that_are_worse_than_most_are_told_to_end_unless_nothing_is_pruned(tmp_path: Path):
    for prune, expected in ((True, True), (False, False)):
        tune = TuneFile("pruned", trials=9, prune=prune, search=TUNE.search)
        study = Study(tmp_path / str(prune), tune)
        for value in (0.5, 0.6, 0.7, 0.8, 0.9):
            claim = study.claim()
            assert claim is not None and not any(claim.report(step, value) for step in range(3))
            study.finish(claim, value)
        claim = study.claim()
        assert claim is not None
        assert [claim.report(step, 0.1) for step in range(2)][-1] is expected
        study.finish(claim, None, pruned=True)
        assert study.rows()[-1]["state"] == "pruned"


def test_every_process_has_a_number_of_its_own(tmp_path: Path):
    with worker_number(tmp_path) as first, worker_number(tmp_path) as second:
        assert (first, second) == (0, 1)
    with worker_number(tmp_path) as again:
        assert again == 0


def test_without_optuna_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"needs Optuna: pip install 'memoroids\[tune\]'"):
        Study(tmp_path, TUNE)
