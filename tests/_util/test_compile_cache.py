"""Compiled programs outlive the process that compiled them, in the user's cache directory alone."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from memoroids._util.compile_cache import SWITCH, keep_compiled_programs

PROGRAM = """
import jax, jax.monitoring, jax.numpy as jnp
from memoroids._util.compile_cache import keep_compiled_programs

seen = []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
where = keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
value = jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))[0, 0]
print(where, seen.count("/jax/compilation_cache/cache_hits"), float(value))
"""


def compiled(cache, **variables):
    """The directory, the programs found there, and what another process prints on standard error."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    env |= {SWITCH: "1", "XDG_CACHE_HOME": str(cache), **variables}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=env)
    where, hits, value = done.stdout.split()
    assert abs(float(value) - 3 * 0.8414709848) < 1e-5
    return where, int(hits), done.stderr


def test_a_later_process_finds_what_an_earlier_one_compiled(tmp_path):
    where, hits, _ = compiled(tmp_path)
    assert where.startswith(str(tmp_path / "memoroids")) and hits == 0
    again, hits, said = compiled(tmp_path)
    assert again == where and hits > 0 and said == ""


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("length", [0, 20])
def test_a_program_that_was_cut_short_is_compiled_again(tmp_path, length: int, read: bool):
    where, *_ = compiled(tmp_path)
    folder = tmp_path / os.path.relpath(where, tmp_path)
    programs = sorted(folder.glob("*-cache"))
    assert programs
    for program in programs:  # as a process leaves it that is killed while it writes
        program.write_bytes(program.read_bytes()[:length])
        if not read:  # by another process, which notes the time
            program.with_name(program.name.removesuffix("-cache") + "-atime").unlink()
    _, hits, said = compiled(tmp_path)
    assert hits == 0 and said == ""
    assert compiled(tmp_path)[1] > 0


def test_it_can_be_turned_off_and_leaves_a_directory_of_the_users_own_to_jax(tmp_path):
    assert compiled(tmp_path, **{SWITCH: "0"})[:2] == ("None", 0)
    own = tmp_path / "own"
    assert compiled(tmp_path, JAX_COMPILATION_CACHE_DIR=str(own))[:2] == ("None", 0)
    assert [*own.iterdir()] and not (tmp_path / "memoroids").exists()


def test_a_directory_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "memoroids").write_text("a file")
    where, hits, said = compiled(tmp_path)
    assert (where, hits, said) == ("None", 0, "")


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch):
    def nowhere() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(SWITCH, "1")
    monkeypatch.setattr(Path, "home", nowhere)
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert keep_compiled_programs() is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_nobody_else_can_write_to_it(tmp_path):
    where, *_ = compiled(tmp_path)
    assert os.stat(where).st_mode & 0o077 == 0


def test_the_switch_leaves_this_process_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(SWITCH, "0")
    assert keep_compiled_programs() is None
