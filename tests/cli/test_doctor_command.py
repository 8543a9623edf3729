"""`memoroids doctor` prints figures and findings, and changes nothing in a run."""

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import pytest
from noisy_toy import ENV, TINY, Toy

from memoroids.cli.main import main

pytestmark = pytest.mark.usefixtures("workplace")


class Unpaid(Toy):
    """The same without a reward."""

    def step(self, action: int):
        observation, _, *rest = super().step(action)
        return observation, 0.0, *rest


gym.register("test-doctor/Unpaid-v0", entry_point=Unpaid)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_run_without_findings(ran: Callable[..., str], workplace: Path):
    # A policy that stays as it is, in evaluations of several episodes, falls from nothing.
    still = ("--updates-per-episode", "0", "--eval-episodes", "8", "--final-episodes", "8")
    assert "memoroids doctor" not in ran("train", "--env", ENV, "--memory", "mlp", "--run-dir", "run", *TINY, *still)
    before = contents(workplace)
    said = ran("doctor", "run")
    assert said.startswith(f"run: dqn with mlp on {ENV}, seed 0, 100% of training")
    assert "random actions return" in said and "observations 2 elements" in said and said.endswith("nothing found")
    assert contents(workplace) == before


def test_findings_are_named_at_the_end_of_training_and_by_the_doctor_for_each_seed(
    ran: Callable[..., str], workplace: Path, capsys: pytest.CaptureFixture[str]
):
    main(["train", "--env", "test-doctor/Unpaid-v0", "--memory", "mlp", "--seeds", "2", "--run-dir", "run", *TINY])
    said = capsys.readouterr()
    assert said.err.count("memoroids: rewards never vary: ") == 2
    assert "found: rewards never vary: memoroids doctor run" in said.out
    said = ran("doctor", "run")
    assert said.count("found: rewards never vary: ") == 2
    assert said.index("run/seed0: ") < said.index("run/seed1: ")
    assert ran("doctor", "run/seed1").count("found: ") == 1
