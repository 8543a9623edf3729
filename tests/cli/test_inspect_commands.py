"""Looking at a run from the command line: evaluating and comparing it changes nothing in it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from noisy_toy import ENV, TINY

from memoroids.runs import metrics
from memoroids.runs.load import evaluate_run

pytestmark = pytest.mark.usefixtures("workplace")


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_run_is_trained_evaluated_and_resumed(ran: Callable[..., str], refused: Callable[..., str], workplace: Path):
    said = ran("train", "--env", ENV, "--memory", "mlp", *TINY)
    (run,) = (workplace / "runs").iterdir()
    shown = run.relative_to(workplace)
    assert [path.name for path in workplace.iterdir()] == ["runs"]
    assert {path.name for path in run.iterdir()} >= {"config.json", "metrics.csv", "curve.png", "checkpoints"}
    assert f"training mlp on {ENV}, tapes, seed 0" in said and "finished" in said
    assert "4/4 episodes" in said and "final return, greedy, 2 fresh seeds" in said
    assert f"try: memoroids evaluate {shown} --episodes 100" in said

    before = files(run)
    said = ran("evaluate", str(shown), "--episodes", "3")
    found = re.fullmatch(
        r"mean return (\S+), 95% interval \[(\S+), (\S+)\], 3 greedy episodes of mean length 5.0 on fresh seeds", said
    )
    assert found is not None
    mean, low, high = map(float, found.groups())
    expected = evaluate_run(run, 3, seed=0).greedy
    assert low <= mean <= high and mean == pytest.approx(expected.mean, abs=1e-4)
    assert files(run) == before

    said = ran("compare", str(shown), "--output", "curves.png")
    assert "mlp" in said and "drawn to curves.png" in said
    assert (workplace / "curves.png").stat().st_size > 5_000
    assert "nowhere/curves.png" in refused("compare", str(shown), "--output", "nowhere/curves.png")
    assert "'none'" in refused("compare", str(shown), "--output", "curves.none")
    assert files(run) == before

    assert str(shown) in refused("train", "--env", ENV, "--memory", "mlp", "--run-dir", str(shown), *TINY)
    assert files(run) == before

    said = ran("resume", str(shown))
    assert f"resuming mlp on {ENV}" in said and "finished" in said
    assert [row["episode"] for row in metrics.read(run / "metrics.csv")] == [2, 4]


@pytest.mark.slow
def test_seeds_on_the_host_are_trained_one_after_the_other_and_looked_at(
    ran: Callable[..., str], refused: Callable[..., str], workplace: Path
):
    said = ran("train", "--env", ENV, "--memory", "mlp", "--seeds", "2", "--run-dir", "both", *TINY)
    assert f"training mlp on {ENV}, tapes, seeds 0 to 1" in said
    assert said.index("seed 0 training: 4/4 episodes") < said.index("seed 1 training: 4/4 episodes")
    assert "final return, greedy, 4 fresh seeds" in said and "both/seed*/metrics.csv" in said
    assert "try: memoroids compare both" in said
    said = ran("compare", "both", "--output", "curves.svg")
    assert "mean of 2" in said and " ± " in said and "both/seed0 " in said and "both/seed1 " in said
    assert (workplace / "curves.svg").read_text().count("<svg")
    before = files(workplace / "both")
    assert "both holds 2 runs: name one, as both/seed0" in refused("evaluate", "both")
    assert "mean return" in ran("evaluate", "both/seed1", "--episodes", "2")
    assert "2 greedy episodes" in ran("sensitivity", "both/seed1", "--episodes", "2", "--output", "measured")
    assert files(workplace / "both") == before
    assert "resuming mlp" in ran("resume", "both")


def test_an_unreadable_checkpoint_or_config_is_named(
    ran: Callable[..., str], refused: Callable[..., str], workplace: Path
):
    ran(
        "train",
        "--env",
        ENV,
        "--memory",
        "mlp",
        "--run-dir",
        "run",
        "--updates-per-episode",
        "0",
        *TINY,
        "--checkpoint-every",
        "500",
    )
    (checkpoint,) = (workplace / "run" / "checkpoints").iterdir()
    manifest = checkpoint / "manifest.json"
    healthy = manifest.read_text()
    for damaged in ("", "[]", '{"counters": {}}', healthy[:-20]):
        manifest.write_text(damaged)
        for command in ("evaluate", "resume"):
            assert str(checkpoint.relative_to(workplace)) in refused(command, "run", code=1)
    manifest.unlink()
    assert "run/checkpoints" in refused("resume", "run", code=1)
    (workplace / "run" / "config.json").write_text('{"env": 3}')
    assert "run/config.json" in refused("evaluate", "run", code=2)
