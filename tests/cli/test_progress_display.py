"""What a run shows: in every encoding, paths as they are, and the command that resumes an interrupted one."""

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from noisy_toy import ENV, TINY

from memoroids.cli.main import main
from memoroids.cli.progress_display import ProgressDisplay
from memoroids.runs import metrics

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_run_does_not_fail_for_letters_that_cannot_be_shown(encoding: str, terminal: Callable[[str], io.BytesIO]):
    shown = terminal(encoding)
    main(["train", "--env", ENV, "--memory", "mlp", "--updates-per-episode", "0", *TINY])
    said = shown.getvalue().decode(encoding)
    assert "4/4 episodes" in said and "final return" in said


@pytest.mark.parametrize("name", ["a[b]:cat: d", "a[/b]"])
def test_paths_are_shown_as_they_are(name: str, asked: Any, capsys: pytest.CaptureFixture[str]):
    main(["train", "--run-dir", name])
    said = " ".join(capsys.readouterr().out.split())
    assert f"memoroids evaluate {name} --episodes" in said


def test_an_interrupted_run_is_resumed_with_the_command_that_it_ends_with(
    ran: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, workplace: Path
):
    def show(self: ProgressDisplay, moment: Any) -> None:
        if moment.row is not None:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(ProgressDisplay, "show", show)
        with pytest.raises(SystemExit) as stop:
            main(["train", "--env", ENV, "--memory", "mlp", "--run-dir", "run", *TINY])
    assert stop.value.code == 130
    said = capsys.readouterr()
    assert said.err == "" and "try: memoroids resume run\n" in said.out
    assert [row["episode"] for row in metrics.read(workplace / "run" / "metrics.csv")] == [2]
    assert "finished" in ran("resume", "run")
    assert [row["episode"] for row in metrics.read(workplace / "run" / "metrics.csv")] == [2, 4]
