"""Freed memory stays with a process that asked for it, and only with that."""

import os
import subprocess
import sys

import pytest

from memoroids._util.allocator import SWITCH, keep_freed_memory

PROGRAM = """
import numpy as np
from memoroids._util.allocator import keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

done = keep_freed_memory()
array = np.ones(2**24)  # 128 MiB
before = resident()
del array
print(done, before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be asked")
@pytest.mark.parametrize("switch", ["1", "0"])
def test_freed_memory_is_kept_unless_the_switch_is_off(switch):
    env = {**os.environ, SWITCH: switch}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=env)
    kept, given_back = done.stdout.split()
    if switch == "0":
        assert kept == "False" and int(given_back) > 2**26
    elif kept == "True":  # another C library than glibc keeps to itself what it does
        assert int(given_back) < 2**20


def test_the_switch_leaves_this_process_alone():
    assert os.environ[SWITCH] == "0" and not keep_freed_memory()
