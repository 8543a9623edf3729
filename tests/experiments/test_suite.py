"""The suite: which runs its grid holds, with which settings, and what is refused. Cells are `fake_cell`s or tiny."""

import json
from pathlib import Path

import pytest

from memoroids.cli.main import main
from memoroids.experiments import results, suite
from memoroids.experiments.suite import STEPS, SUITE, SuiteChoice, budget, suite_cells
from memoroids.runs.presets import preset
from memoroids.runs.settings import TrainConfig

INSTALLED = [name for name, task in SUITE.items() if not task.missing]


def test_every_environment_is_trained_with_the_defaults_of_memoroids_train():
    found = suite_cells(SuiteChoice(seeds=1))
    assert list(dict.fromkeys(cell.task for cell in found)) == INSTALLED
    for cell in found:
        task, config = SUITE[cell.task], cell.config
        assert (config.env.id, config.env.options, config.network.memory) == (task.env, task.options, cell.memory)
        assert budget(config) == task.goal(config.algorithm).steps
        usual = TrainConfig.of(**preset("tuned", task.env, cell.memory, config.algorithm), algorithm=config.algorithm)
        assert (config.agent, config.collection, config.replay) == (usual.agent, usual.collection, usual.replay)
        assert config.evaluation == usual.evaluation and config.network.width == usual.network.width


def test_targets_stand_beside_their_budgets():
    def of(name: str) -> list[tuple[str, float | None, int]]:
        return [(goal.algorithm, goal.target, goal.steps) for goal in SUITE[name].goals]

    assert of("cartpole") == [("ppo", 475.0, 100_000), ("pqn", 400.0, 150_000), ("dqn", 400.0, 60_000)]
    assert of("pendulum") == [("ppo", -250.0, 300_000)] and of("memory_s7") == [("ppo", 0.8, 1_000_000)]
    assert of("tmaze-10") == [("ppo", 0.95, 200_000)] and SUITE["tmaze-10"].memories == ("lru", "s5", "ffm", "gru")
    assert SUITE["cartpole"].goal("own_agent:A2C") == suite.Goal("own_agent:A2C", None, STEPS)


def test_a_choice_of_environments_agents_memories_seeds_and_steps():
    choice = SuiteChoice(
        tasks=("tmaze-10", "cartpole"), algorithms=("ppo", "pqn"), memories=("gru",), seeds=2, steps=5_000
    )
    found = suite_cells(choice)
    assert [cell.name for cell in found[:4]] == [
        "tmaze-10-ppo-gru-seed0",
        "tmaze-10-pqn-gru-seed0",
        "cartpole-ppo-gru-seed0",
        "cartpole-pqn-gru-seed0",
    ]
    assert len(found) == 8 and {budget(cell.config) for cell in found} == {5_000}
    assert [cell.config.seed for cell in found] == [0] * 4 + [1] * 4


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch):
    lacking = suite.SuiteTask("CartPole-v1", package="no_such_package", install="no-such")
    monkeypatch.setitem(SUITE, "lacking", lacking)
    found = suite_cells(SuiteChoice(tasks=("lacking", "cartpole"), algorithms=("ppo",), seeds=1))
    assert [cell.task for cell in found] == ["cartpole"]
    with pytest.raises(ValueError, match="none of the environments is installed: pip install no-such"):
        suite_cells(SuiteChoice(tasks=("lacking",)))


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        (SuiteChoice(tasks=("cartpol",)), "unknown environment of the suite 'cartpol'; did you mean cartpole"),
        (SuiteChoice(tasks=("cartpole", "cartpole")), "a run twice"),
        (SuiteChoice(memories=("lruu",)), "did you mean lru"),
        (SuiteChoice(tasks=("cartpole",), algorithms=("pppo",)), "pppo"),
    ],
)
def test_a_wrong_choice_is_refused(choice: SuiteChoice, says: str):
    with pytest.raises(ValueError, match=says):
        suite_cells(choice)


ASKED = ["reproduce", "suite", "--tasks", "tmaze-10", "cartpole", "--algorithms", "ppo", "--memories", "lru"]


@pytest.mark.usefixtures("faked")
def test_the_command_resumes_where_a_run_failed_and_writes_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    bad = "cartpole-ppo-lru-seed1"
    (tmp_path / "runs" / "orders.json").write_text(json.dumps({bad: "raise"}))
    asked = [*ASKED, "--seeds", "2", "--jobs", "2"]
    with pytest.raises(SystemExit) as stop:
        main(asked)
    page = tmp_path / "runs" / "suite-laptop" / "report" / "suite.md"
    said = capsys.readouterr()
    assert stop.value.code == 1 and "the table says which and why" in said.err
    assert "3 of 4 runs done" in page.read_text() and f"- {bad}: exit status 1" in page.read_text()
    assert "1 of 2 seeds" in page.read_text()

    (tmp_path / "runs" / "orders.json").unlink()
    random = (tmp_path / "runs" / "suite-laptop" / "random.json").read_bytes()
    main([*asked, "--retry"])
    started = [json.loads(line)["name"] for line in (tmp_path / "runs" / "starts").read_text().splitlines()]
    assert started.count(bad) == 2 and len(started) == 5
    assert "4 of 4 runs done" in page.read_text()
    assert (tmp_path / "runs" / "suite-laptop" / "random.json").read_bytes() == random

    page.unlink()
    capsys.readouterr()
    main(["report", "runs/suite-laptop"])
    assert capsys.readouterr().out == "runs/suite-laptop/report/suite.md\n" and page.exists()


def test_a_tiny_run_trains_and_is_skipped_when_the_command_is_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = tmp_path / "grid"
    asked = ["reproduce", "suite", "--scale", "smoke", "--tasks", "tmaze-10", "--memories", "mlp", "--seeds", "1"]
    main([*asked, "--output", str(root)])
    (run,) = results.load(root).runs
    assert run.rows[-1]["env_steps"] >= 600 and 0 <= run.summary["final_return"] <= 1
    assert "A smoke run" in (root / "report" / "suite.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in (root / "cells").rglob("*") if path.is_file()}
    capsys.readouterr()
    main([*asked, "--output", str(root)])
    assert "done in" not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (root / "cells").rglob("*") if path.is_file()} == before
