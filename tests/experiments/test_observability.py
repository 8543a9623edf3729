"""What memory is worth: which runs are made for an environment and its twin."""

from pathlib import Path

import pytest

from memoroids.cli.main import main
from memoroids.experiments.observability import PARTIAL, TWIN, GapChoice, gap_cells, twin_of
from memoroids.runs.settings import TrainConfig


def test_each_memory_and_none_are_trained_on_both():
    choice = GapChoice("device:RepeatPreviousHard", memories=("lru", "gru"), seeds=2, steps=5_000)
    found = gap_cells(choice)
    assert len(found) == 12 and len({cell.name for cell in found}) == 12
    assert [(cell.task, cell.memory, cell.seed) for cell in found[:6]] == [
        (PARTIAL, "lru", 0),
        (TWIN, "lru", 0),
        (PARTIAL, "gru", 0),
        (TWIN, "gru", 0),
        (PARTIAL, "mlp", 0),
        (TWIN, "mlp", 0),
    ]
    for cell in found:
        env = {PARTIAL: "device:RepeatPreviousHard", TWIN: "device:ObservedRepeatPreviousHard"}[cell.task]
        plain = TrainConfig.of(
            preset="default", env=env, memory=cell.memory, algorithm="ppo", seed=cell.seed, steps=5_000
        )
        assert cell.config == plain


def test_any_two_environments_are_taken():
    found = gap_cells(GapChoice("memoroids.envs.host.development:cartpole", twin="CartPole-v1", seeds=1))
    assert {cell.config.env.id for cell in found} == {"memoroids.envs.host.development:cartpole", "CartPole-v1"}


def test_only_popgyms_tasks_on_device_have_a_twin_of_their_own():
    assert twin_of("device:repeatfirstEASY") == "device:ObservedRepeatFirstEasy"
    for name in ("RepeatFirstEasy", "CartPole-v1", "device:ObservedRepeatFirstEasy"):
        with pytest.raises(ValueError, match="has no twin of its own"):
            twin_of(name)


def test_tiny_runs_are_trained_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = tmp_path / "gap"
    main(f"gap device:RepeatFirstEasy --seeds 1 --steps 1100 --jobs 2 --output {root}".split())
    said = capsys.readouterr().out
    assert "4 runs, 2 at a time" in said and f"report: {root / 'report' / 'gap.md'}" in said
    page = (root / "report" / "gap.md").read_text()
    assert "4 of 4 runs done" in page and "| lru | 1 |" in page and "`device:ObservedRepeatFirstEasy`" in page
    main(["report", str(root)])
    assert (root / "report" / "gap.md").read_text() == page
