"""Running a command within the test's process: in an empty directory, expecting success or one line of refusal."""

import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memoroids.acting.evaluation import Evaluation, Evaluations
from memoroids.cli.main import main
from memoroids.runs import train as training
from memoroids.runs.progress import Outcome
from memoroids.runs.settings import TrainConfig


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory that commands are run in, as an installed command sees it: not on Python's path."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("workplace_"):
            del sys.modules[name]
    for name in [name for name in gym.registry if name.startswith("workplace/")]:
        del gym.registry[name]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with a single line on stderr, and returns the line."""

    def run(*argv: str, code: int | None = None) -> str:
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert isinstance(stop.value.code, int) and stop.value.code != 0
        assert code is None or stop.value.code == code
        said = capsys.readouterr().err
        assert said.startswith("memoroids: ") and said.endswith("\n") and said.count("\n") == 1
        assert not re.search(r"[│╭╰]|Traceback", said)
        return said

    return run


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must succeed in silence on stderr, and returns its output with the spaces folded."""

    def run(*argv: str) -> str:
        try:
            main(argv)
        except SystemExit as stop:
            assert not stop.code, capsys.readouterr().err
        said = capsys.readouterr()
        assert said.err == ""
        return " ".join(said.out.split())

    return run


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], io.BytesIO]:
    """Lets standard output go to a place that writes in an encoding of its own."""

    def replace(encoding: str) -> io.BytesIO:
        shown = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding, write_through=True))
        return shown

    return replace


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainConfig, Path, bool]]:
    """What the command line asks of training, which is not done."""
    calls: list[tuple[TrainConfig, Path, bool]] = []

    def instead(config: TrainConfig, run_dir: Path, *, resume: bool = False, watch: Any = None) -> Outcome:
        calls.append((config, run_dir, resume))
        returns = Evaluation(np.ones(2), np.ones(2, int))
        return Outcome(Evaluations(returns, returns), [], run_dir, config)

    monkeypatch.setattr(training, "train", instead)
    return calls
