"""TensorBoard and Weights & Biases: what is sent to them, and what happens if one is not installed."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from memoroids.runs.metrics import ABSENT, FIELDS
from memoroids.runs.trackers import Trackers
from metric_rows import ROWS, row


def test_tensorboard_events_hold_every_column(tmp_path: Path):
    trackers = Trackers(tmp_path, {}, tensorboard=True, wandb=False)
    for values in ROWS:
        trackers.write(values)
    trackers.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert all(name.encode() in content for name in FIELDS)
    assert content.count(b"eval_return") >= len(ROWS)


def test_what_an_agent_does_not_have_is_not_sent(tmp_path: Path):
    trackers = Trackers(tmp_path, {}, tensorboard=True, wandb=False)
    trackers.write(row(10, **dict.fromkeys(ABSENT, math.nan), loss=math.nan))
    trackers.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"loss" in content and not any(name.encode() in content for name in ABSENT)


def test_nothing_is_written_where_no_logger_is_asked_for(tmp_path: Path):
    trackers = Trackers(tmp_path, {}, tensorboard=False, wandb=False)
    trackers.write(ROWS[0])
    trackers.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_logger_that_is_not_installed_is_answered_with_how_to_install_it(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError) as error:
        Trackers(tmp_path, {}, tensorboard=name == "tensorboard", wandb=name == "wandb")
    message = str(error.value)
    assert f"--{name}" in message and f"pip install 'memoroids[{name}]'" in message and "\n" not in message


def test_weights_and_biases_gets_every_row_at_its_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Fake:
        """What of wandb is called."""

        def __init__(self):
            self.started: dict[str, Any] = {}
            self.logged: list[tuple[dict[str, float], int]] = []
            self.finished = False

        def init(self, **options: Any) -> "Fake":
            self.started = options
            return self

        def log(self, values: dict[str, float], step: int) -> None:
            self.logged.append((values, step))

        def finish(self) -> None:
            self.finished = True

    fake = Fake()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    trackers = Trackers(tmp_path, {"seed": 3}, tensorboard=False, wandb=True)
    for values in ROWS:
        trackers.write(values)
    trackers.close()
    assert fake.started["config"] == {"seed": 3} and str(tmp_path) in str(fake.started["dir"])
    assert fake.logged == [(values, int(values["episode"])) for values in ROWS]
    assert fake.finished


def test_weights_and_biases_that_cannot_start_is_answered_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class NotLoggedIn:
        @staticmethod
        def init(**options: Any) -> None:
            raise RuntimeError("api_key not configured (no-tty).\n" * 35)

    monkeypatch.setitem(sys.modules, "wandb", NotLoggedIn)
    with pytest.raises(
        ValueError, match=r"api_key not configured .*: run `wandb login` first, or set WANDB_MODE"
    ) as error:
        Trackers(tmp_path, {}, tensorboard=False, wandb=True)
    assert "\n" not in str(error.value)
