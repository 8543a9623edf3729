"""What a live page is told of runs: curves, how far they are, warnings and findings; nothing is written."""

import json
import math
import os
from pathlib import Path

import pytest

from memoroids.runs.check_up import examined
from memoroids.runs.metrics import FIELDS, MetricsFile, read
from memoroids.runs.run_directory import BASELINE, CONFIG, METRICS, SUMMARY, WARNINGS, seed_dir
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import to_json
from memoroids.viewing import live_runs
from memoroids.viewing.live_runs import SHOWN, described, live, runs_in
from metric_rows import row

SETTINGS = {"env": "RepeatFirstEasy", "memory": "lru", "algorithm": "ppo", "train_episodes": 100, "target_return": 0.5}


def begun(path: Path, *rows: dict[str, float], **changes: object) -> Path:
    """A run directory as it is while training, with these rows of metrics."""
    path.mkdir(parents=True)
    (path / CONFIG).write_text(to_json(TrainConfig.of(**SETTINGS | changes)))
    if rows:
        append(path, *rows)
    return path


def append(run: Path, *rows: dict[str, float]) -> None:
    """Writes further rows, as the run does."""
    path = run / METRICS
    file = MetricsFile(path, keep=path.stat().st_size if path.exists() else 0)
    for each in rows:
        file.write(each)
    file.close()


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_run_under_way_is_described_and_left_as_it_is(tmp_path: Path):
    run = begun(tmp_path / "run", row(20, seconds=10.0, kl=math.nan), row(40, eval_return=-0.25, seconds=20.0))
    (run / WARNINGS).write_text("episode 3: something\nepisode 9: something else\n")
    before = contents(tmp_path)
    found = described(run)
    assert contents(tmp_path) == before
    (column,) = found["curves"].values()
    assert column["episode"] == [20.0, 40.0] and column["eval_return"][1] == -0.25 and column["kl"][0] is None
    assert found["share"] == 0.4 and found["left"] == pytest.approx(30.0) and not found["finished"]
    assert found["target"] == 0.5 and found["random"] is None
    assert found["warnings"] == ["episode 3: something", "episode 9: something else"]
    json.dumps(found, allow_nan=False)


def test_a_row_that_is_half_written_is_not_there_yet(tmp_path: Path):
    run = begun(tmp_path / "run", row(20), row(40))
    whole = (run / METRICS).read_bytes()
    for size in range(len(whole)):
        (run / METRICS).write_bytes(whole[:size])
        found = described(run)
        assert "error" not in found
        expected = max(0, whole[:size].count(b"\n") - 1)
        assert len(next(iter(found["curves"].values()), {}).get("episode", [])) == expected


def test_a_run_that_has_not_evaluated_yet_has_no_curves(tmp_path: Path):
    found = described(begun(tmp_path / "run"))
    assert found["curves"] == {} and found["left"] is None and found["share"] == 0.0 and not found["finished"]


def test_several_seeds_are_one_run_with_a_mean_and_the_words_of_each(tmp_path: Path):
    run = begun(tmp_path / "run", seeds=2)
    for seed, value in ((0, 0.0), (1, 1.0)):
        rows = [row(20, eval_return=value, seconds=10.0), row(40, eval_return=value, seconds=20.0)][: 2 - seed]
        (begun(seed_dir(run, seed), *rows, seed=seed) / WARNINGS).write_text("episode 1: slow\n")
    found = described(run)
    assert list(found["curves"]) == ["mean", "seed0", "seed1"]
    # The mean of those that have got so far.
    assert found["curves"]["mean"]["eval_return"] == [0.5, 0.0]
    assert found["curves"]["seed0"]["eval_return"] == [0.0, 0.0] and found["curves"]["seed1"]["eval_return"] == [1.0]
    assert found["share"] == pytest.approx(0.3) and found["left"] == pytest.approx(30 * 0.7 / 0.3)
    assert found["warnings"] == ["seed0: episode 1: slow", "seed1: episode 1: slow"]


def test_a_finished_run_says_its_final_return_and_what_the_doctor_found(finished, tmp_path: Path):
    settings = TrainConfig.of(
        env="RepeatFirstEasy", algorithm="ppo", memory="lru", width=8, num_envs=2, rollout=60, minibatches=1, epochs=1,
        train_episodes=4, eval_every=2, eval_episodes=2, final_episodes=2, memory_sizes={"state_size": 4},
    )  # fmt: skip
    run = finished(settings, tmp_path / "run")
    found = described(run)
    summary = json.loads((run / SUMMARY).read_text())
    assert found["finished"] and found["share"] == 1.0 and found["left"] is None
    assert found["final"] == summary["final_return"] and found["random"] is not None
    assert found["findings"] == [f"{finding.name}: {finding.line}" for finding in examined(run)]
    (run / BASELINE).unlink()
    assert described(run)["random"] is None


DAMAGES: dict[str, tuple[str, str]] = {
    "metrics": (METRICS, ",".join(FIELDS) + "\nnonsense\n"),
    "infinite": (METRICS, ",".join(FIELDS) + "\n" + ",".join("inf" for _ in FIELDS) + "\n"),
    "summary": (SUMMARY, "[]"),
    "settings": (CONFIG, "{}"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_one_line_beside_the_others(damage: str, tmp_path: Path):
    good, bad = begun(tmp_path / "good", row(20)), begun(tmp_path / "bad", row(20))
    name, text = DAMAGES[damage]
    (bad / name).write_text(text)
    found = {Path(each["path"]).name: each for each in live([good, bad])}
    assert "error" not in found["good"]
    assert found["bad"]["error"] and found["bad"]["error"].count("\n") == 0
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("summary", ['{"final_return": null}', "{}", '{"final_return": 3}'])
def test_a_summary_without_its_figures_is_that_of_a_run_that_is_not_finished(summary: str, tmp_path: Path):
    run = begun(tmp_path / "run", row(20, seconds=math.nan))
    (run / SUMMARY).write_text(summary)
    found = described(run)
    assert "error" not in found and not found["finished"] and found["left"] is None


def test_a_run_is_read_again_only_when_it_has_written_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, reads = begun(tmp_path / "run", row(20)), []
    monkeypatch.setattr(live_runs, "read_so_far", lambda path: reads.append(path) or read(path))
    described(run)
    assert len(described(run)["curves"]["run"]["episode"]) == len(reads) == 1
    append(run, row(40))
    assert len(described(run)["curves"]["run"]["episode"]) == len(reads) == 2


def test_a_folder_of_runs_shows_the_newest(tmp_path: Path):
    for number in range(SHOWN + 2):
        run = begun(tmp_path / f"run{number:02}")
        os.utime(run / CONFIG, (number, number))
    # In the order of names, which is the same whichever of them was the last to write something.
    assert [path.name for path in runs_in(tmp_path)] == [f"run{i + 2:02}" for i in range(SHOWN)]
    assert runs_in(tmp_path / "run03") == [tmp_path / "run03"]
    # One of its seeds is the last.
    begun(seed_dir(tmp_path / "run00", 0), row(20))
    assert tmp_path / "run00" in runs_in(tmp_path)


def test_where_no_run_is_one_line_says_so(tmp_path: Path):
    with pytest.raises(ValueError, match="is no directory: name a run"):
        runs_in(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no run: train one"):
        runs_in(tmp_path)
    run = begun(tmp_path / "a" / "run", row(20))
    there, gone = live([run, tmp_path / "gone"])
    assert "error" not in there and "is no directory" in gone["error"]
