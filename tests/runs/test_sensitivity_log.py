"""sensitivity_training.csv: profiles during training, in a file that a resumed run continues."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from memoroids.analysis.sensitivity import Profile
from memoroids.runs.sensitivity_log import SensitivityLog, read_log
from profiles import LOG


def assert_log(path: Path, *episodes: int) -> None:
    found = read_log(path)
    assert list(found) == list(episodes)
    for number, share in found.items():
        np.testing.assert_array_equal(share, LOG[number])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "sensitivity_training.csv"
    with closing(SensitivityLog(path)) as file:
        assert file.episode == 0
        assert_log(path)
        for i, (number, share) in enumerate(LOG.items()):
            file.write(number, Profile(np.asarray(share), 0.0, 1, 0))
            assert file.episode == number
            assert_log(path, *list(LOG)[: i + 1])
    return path


def test_profiles_while_training_are_rows_of_episode_age_and_share(log: Path):
    rows = [line.split(",") for line in log.read_text().splitlines()]
    assert rows[0] == ["episode", "age", "share"]
    assert rows[3:5] == [["10", "2", "0.25"], ["20", "0", "0.75"]]


@pytest.mark.parametrize("torn", ["", "4", "40,", "40,0,0.1\n40,1", "30,3,0.1", "x\r\n"])
def test_going_on_keeps_what_was_before_the_checkpoint(torn: str, log: Path):
    with log.open("a", newline="") as file:
        file.write(torn)
    with closing(SensitivityLog(log, keep=25)) as file:
        assert file.episode == 20
        assert_log(log, 10, 20)
        file.write(30, Profile(np.asarray(LOG[30]), 0.0, 1, 0))
    assert_log(log, 10, 20, 30)
    assert [path.name for path in log.parent.iterdir()] == [log.name]


@pytest.mark.parametrize("torn", ["4", "40,0", "40,0,x", "40,1,0.1", "40,0,0.1,5"])
def test_a_line_that_is_not_one_of_ours_is_named(torn: str, log: Path):
    with log.open("a", newline="") as file:
        file.write(torn + "\r\n")
    with pytest.raises(ValueError) as error:
        read_log(log)
    assert str(log) in str(error.value) and "line 10" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_or_foreign_log_is_refused_and_left_as_it_was(tmp_path: Path):
    path = tmp_path / "log.csv"
    for attempt in (lambda: read_log(path), lambda: SensitivityLog(path, keep=5)):
        with pytest.raises(ValueError, match=r"log\.csv is missing"):
            attempt()
    path.write_text("a,b\n1,2\n")
    for attempt in (lambda: read_log(path), lambda: SensitivityLog(path, keep=5)):
        with pytest.raises(ValueError, match="header"):
            attempt()
    assert path.read_text() == "a,b\n1,2\n"
