"""The entry point: what is listed, how fast, and the exit codes."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from noisy_toy import ENV, TINY

from memoroids import __version__
from memoroids.cli.commands import COMMANDS
from memoroids.runs import train as training
from memoroids.runs.progress import Outcome

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]], ids=str)
def test_the_commands_are_listed_with_what_they_do(argv: list[str], ran: Callable[..., str]):
    said = ran(*argv)
    for name, command in COMMANDS.items():
        assert f" {name} {command.summary}" in said


def test_the_version_is_that_of_the_package(ran: Callable[..., str]):
    assert ran("--version") == __version__


def loaded_by(*argv: str) -> set[str]:
    """The packages that a process has loaded after a command."""
    program = (
        "import contextlib, sys\n"
        "from memoroids.cli.main import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(sys.argv[1:])\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["trian"]], ids=" ".join)
def test_help_and_an_unknown_command_load_nothing_heavy(argv: list[str]):
    loaded = loaded_by(*argv)
    assert "memoroids" in loaded
    assert not loaded & {"jax", "numpy", "gymnasium", "tyro", "rich", "equinox", "optax", "matplotlib"}


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_the_help_of_a_command_whose_options_are_its_own_loads_no_jax(command: str):
    loaded = loaded_by(command, "--help")
    assert "tyro" in loaded
    assert not loaded & {"jax", "numpy", "gymnasium", "equinox", "optax", "matplotlib"}


def test_a_replay_larger_than_the_machines_memory_is_answered_in_one_line(refused: Callable[..., str]):
    settings = dict(zip(TINY[::2], TINY[1::2], strict=True)) | {"--buffer-size": "1000000000000"}
    said = refused("train", "--env", ENV, "--memory", "mlp", *[word for pair in settings.items() for word in pair])
    assert "buffer" in said


def test_ctrl_c_before_anything_began_ends_with_its_own_code(refused: Callable[..., str], monkeypatch: Any):
    def interrupted(*_: Any, **__: Any) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    assert "interrupted" in refused("train", code=130)
