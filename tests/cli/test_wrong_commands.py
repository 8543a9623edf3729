"""Every wrong command and damaged run is answered in one clear line, and nothing is left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wrong_commands import Case, cases, complaint, judge

CASES = cases(Path("/nowhere"))
FAMILIES = sorted({case.family for case in CASES})


def of(family: str) -> list[Case]:
    return [case for case in CASES if case.family == family]


def test_there_are_two_hundred_and_no_two_are_one():
    assert len({(case.name, case.argv) for case in CASES}) == len(CASES) >= 200


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_of_wrong_commands_is_answered_in_one_line_each(family: str, tmp_path: Path):
    wrong = {}
    for number, case in enumerate(of(family)):
        where = tmp_path / str(number)
        where.mkdir()
        if (answer := judge(case, where)) is not None:
            wrong[case.name] = answer
    assert not wrong, "\n".join(f"{name}: {answer}" for name, answer in wrong.items())


def test_a_process_of_its_own_answers_as_one_does_here(tmp_path: Path):
    for number, family in enumerate(("command", "wrong type", "damaged config")):
        case, where = of(family)[0], tmp_path / str(number)
        where.mkdir()
        if case.prepare is not None:
            case.prepare(where)
        before = sorted(where.rglob("*"))
        done = subprocess.run(
            [sys.executable, "-m", "memoroids", *case.argv],
            cwd=where,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert complaint(case, done.returncode, done.stderr) is None
        assert sorted(where.rglob("*")) == before
