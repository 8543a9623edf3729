"""One tape on several devices: scans, recurrences, models and gradients equal those of a slow loop or of one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "sharded_checks.py"
CHECKS = (
    "scans_of_integers_are_bit_for_bit_a_loop",
    "scans_of_sums_and_maxima_are_running_ones",
    "gradients_of_scans_are_those_of_a_loop",
    "recurrences_of_one_decay_and_their_gradients_are_those_of_a_loop",
    "recurrences_of_complex_numbers_are_those_of_a_loop",
    "recurrences_of_decays_in_time_are_those_of_a_loop",
    "nothing_crosses_a_reset",
    "models_are_what_they_are_on_one_device",
    "what_does_not_fit_is_refused_in_one_line",
)


@pytest.fixture(scope="module")
def report() -> dict[str, str | None]:
    # With XLA's optimisations, as the other numerical contracts are tested.
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    env = {**os.environ, **flags}
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_on_four_devices(report):
    assert tuple(report) == CHECKS
    failed = {name: said for name, said in report.items() if said is not None}
    assert not failed, "\n".join(f"{name}: {said}" for name, said in failed.items())
