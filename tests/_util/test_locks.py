"""A lock: held by one process at a time, named by it, and released when it is killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memoroids._util.locks import Held, exclusive

HOLDS = "import sys, pathlib; from memoroids._util.locks import exclusive\nwith exclusive(pathlib.Path(sys.argv[1])):"


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path):
    with exclusive(tmp_path / "lock"):
        for _ in range(2):
            with pytest.raises(Held, match=rf"process {os.getpid()}, started 20\d\d-"), exclusive(tmp_path / "lock"):
                pass
    with exclusive(tmp_path / "lock"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path):
    code = f"{HOLDS}\n    print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(Held, match=f"process {process.pid}, "), exclusive(tmp_path / "lock"):
            pass
        process.kill()
    with exclusive(tmp_path / "lock"):
        pass
