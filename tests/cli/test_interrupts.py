"""Ctrl-C while the main thread is busy in compiled code: what is said at once, and how the second one ends it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from memoroids.cli.interrupts import answered

# The busy call gives no other Python code of the main thread a chance, as a long compiled call of JAX.
BUSY = """
import ctypes, signal, sys
from memoroids.cli import interrupts
interrupts.PATIENCE = 0.2
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
with interrupts.answered("the call ends"):
    print("busy", flush=True)
    for _ in range({seconds}):
        ctypes.CDLL(None).usleep(900_000)
print("ended", len(heard), flush=True)
"""


def started(seconds: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(seconds=seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "busy\n"
    return process


def test_the_first_is_answered_while_compiled_code_runs_and_reaches_its_handler():
    with started(3) as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None and process.stdout is not None
        said = process.stderr.readline()
        assert "the run ends with a checkpoint as soon as the call ends; once more ends it at once" in said
        assert process.poll() is None
        assert process.stdout.read() == "ended 1\n"
    assert process.returncode == 0


def test_the_second_ends_a_process_that_does_not_answer():
    with started(600) as process:
        assert process.stderr is not None
        for said in ("the run ends with a checkpoint", "ended without a checkpoint"):
            process.send_signal(signal.SIGINT)
            assert said in process.stderr.readline()
    assert process.returncode == 130


def test_other_signals_are_none_of_it_and_what_was_there_before_is_again(capsys: pytest.CaptureFixture[str]):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    before = signal.set_wakeup_fd(writing)
    try:
        with answered("nothing"):
            os.kill(os.getpid(), signal.SIGALRM)
            time.sleep(0.01)
    finally:
        assert signal.set_wakeup_fd(before) == writing
        signal.signal(signal.SIGALRM, handler)
        os.close(reading)
        os.close(writing)
    assert capsys.readouterr().err == ""
