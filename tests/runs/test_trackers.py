"""TensorBoard, Weights & Biases and Trackio: what is sent to them, once each, and what happens without them."""

import json
import math
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memoroids.runs.metrics import ABSENT, FIELDS, read
from memoroids.runs.run_directory import CHECKPOINTS, CONFIG, METRICS, SUMMARY, TRACKED, seed_dir
from memoroids.runs.settings import TrainConfig
from memoroids.runs.trackers import STARTS, Trackers
from memoroids.runs.train import train
from metric_rows import ROWS, row

PACKAGES = [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("trackio", "trackio")]


class FakeRun:
    """A run of a tracker: what it was told."""

    def __init__(self, options: dict[str, Any]):
        self.options, self.logged, self.finished = options, [], False

    def log(self, values: dict[str, float], step: int) -> None:
        assert not self.finished
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished = True


class Fake(types.ModuleType):
    """What of wandb and trackio is called, by the runs that were started."""

    def __init__(self, name: str):
        super().__init__(name)
        self.runs: list[FakeRun] = []

    def init(self, **options: Any) -> FakeRun:
        self.runs.append(FakeRun(options))
        return self.runs[-1]

    @property
    def steps(self) -> list[int]:
        return [step for run in self.runs for _, step in run.logged]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Fake]:
    def made(name: str) -> Fake:
        module = Fake(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return made


def scalars(run_dir: Path) -> list[tuple[str, int]]:
    """The names and steps of all that TensorBoard reads in a run directory."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((run_dir / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:  # a length of 8 bytes, its checksum of 4, the event, its checksum of 4
            size = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]
            found += [(value.tag, event.step) for value in event.summary.value]
    return found


def test_tensorboard_events_hold_every_column_of_every_row(tmp_path: Path):
    trackers = Trackers(tmp_path, {}, ["tensorboard"])
    for values in ROWS:
        trackers.write(values)
    trackers.close()
    assert sorted(scalars(tmp_path)) == sorted((name, int(each["env_steps"])) for each in ROWS for name in FIELDS)


def test_what_an_agent_does_not_have_is_not_sent(tmp_path: Path):
    trackers = Trackers(tmp_path, {}, ["tensorboard"])
    trackers.write(row(10, **dict.fromkeys(ABSENT, math.nan), loss=math.nan))
    trackers.close()
    assert {name for name, _ in scalars(tmp_path)} == set(FIELDS) - set(ABSENT)


def test_nothing_is_written_where_no_tracker_is_asked_for(tmp_path: Path):
    trackers = Trackers(tmp_path, {}, [])
    trackers.write(ROWS[0])
    trackers.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "package"), PACKAGES)
def test_a_tracker_that_is_not_installed_is_answered_with_how_to_install_it(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError) as error:
        Trackers(tmp_path / "run", {}, [name])
    message = str(error.value)
    assert f"--{name}" in message and f"pip install 'memoroids[{name}]'" in message and "\n" not in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_every_row_is_sent_at_its_environment_step(name: str, tmp_path: Path, fake: Callable[[str], Fake]):
    module = fake(name)
    trackers = Trackers(tmp_path, {"seed": 3}, [name])
    for values in ROWS:
        trackers.write(values)
    trackers.close()
    (run,) = module.runs
    assert run.options["config"] == {"seed": 3} and run.options["resume"] == "allow"
    assert tmp_path.name in run.options["name"]
    assert run.logged == [(values, int(values["env_steps"])) for values in ROWS]
    assert run.finished


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_resumed_run_continues_as_the_same_and_sends_only_what_is_new(
    name: str, tmp_path: Path, fake: Callable[[str], Fake]
):
    module = fake(name)
    first = Trackers(tmp_path, {}, [name])
    for values in ROWS[:2]:
        first.write(values)
    second = Trackers(tmp_path, {}, [name])  # the first was killed
    for values in ROWS:
        second.write(values)
    assert module.steps == [int(values["env_steps"]) for values in ROWS]
    before, after = (run.options for run in module.runs)
    assert (before["name"], before.get("id")) == (after["name"], after.get("id"))


@pytest.mark.parametrize("content", ["", "[]", '{"wandb": 3}', '{"wandb": {"id": "a"}}', "\0"])
def test_a_damaged_record_of_what_was_sent_starts_anew(content: str, tmp_path: Path, fake: Callable[[str], Fake]):
    module = fake("wandb")
    (tmp_path / TRACKED).write_text(content)
    Trackers(tmp_path, {}, ["wandb"]).write(ROWS[0])
    assert module.steps == [int(ROWS[0]["env_steps"])]
    assert json.loads((tmp_path / TRACKED).read_text())["wandb"]["env_steps"] == module.steps[0]


def settings(**changes: Any) -> TrainConfig:
    small = {"algorithm": "ppo", "width": 8, "num_envs": 2, "rollout": 60, "minibatches": 1, "epochs": 1}
    counts = {"train_episodes": 12, "eval_every": 2, "eval_episodes": 1, "final_episodes": 1, "checkpoint_every": 6}
    return TrainConfig.of(**{"env": "RepeatFirstEasy", "memory": "mlp"} | small | counts | changes)


def test_rows_after_the_newest_checkpoint_are_sent_once_though_they_are_written_twice(
    tmp_path: Path, fake: Callable[[str], Fake]
):
    module, run = fake("wandb"), tmp_path / "run"
    config = settings(wandb=True, tensorboard=True, checkpoint_every=2, keep_checkpoints=20)
    train(config, run)
    steps = [int(values["env_steps"]) for values in read(run / METRICS)]
    first, *later = sorted((run / CHECKPOINTS).iterdir())
    for path in later:  # as if it had been killed then
        shutil.rmtree(path)
    (run / SUMMARY).unlink()
    train(config, run, resume=True)
    assert [int(values["env_steps"]) for values in read(run / METRICS)] == steps
    assert len(module.runs) == 2 and module.steps == steps and len(steps) > 3 and later
    before, after = (each.options for each in module.runs)
    assert before["id"] == after["id"] and first.exists()
    assert [step for name, step in scalars(run) if name == "loss"] == steps


@pytest.mark.parametrize("env", ["RepeatFirstEasy", "device:RepeatFirstEasy"])
def test_several_seeds_are_tracked_as_runs_of_their_own(env: str, tmp_path: Path, fake: Callable[[str], Fake]):
    module, run = fake("trackio"), tmp_path / "several"
    train(settings(env=env, seeds=2, trackio=True, train_episodes=4), run)
    assert [each.options["name"].rpartition("-")[0] for each in module.runs] == ["several-seed0", "several-seed1"]
    for seed, each in enumerate(module.runs):
        assert [step for _, step in each.logged] == [
            int(values["env_steps"]) for values in read(seed_dir(run, seed) / METRICS)
        ]
        assert each.finished and each.options["config"]["seed"] == seed
    assert (run / CONFIG).exists()


def test_a_tracker_that_cannot_start_is_answered_in_one_line(tmp_path: Path, fake: Callable[[str], Fake]):
    def not_logged_in(**options: Any) -> Any:
        raise RuntimeError("No API key configured.\n" * 35)

    other, module = fake("trackio"), fake("wandb")
    module.init = not_logged_in
    with pytest.raises(
        ValueError, match=r"No API key configured.*: run `wandb login` first, or set WANDB_MODE"
    ) as error:
        Trackers(tmp_path, {}, ["trackio", "wandb"])
    assert "\n" not in str(error.value) and other.runs[0].finished


def test_a_run_that_ends_before_its_first_row_goes_on_as_the_same_even_if_it_is_moved(
    tmp_path: Path, fake: Callable[[str], Fake]
):
    module = fake("trackio")
    Trackers(tmp_path / "a", {}, ["trackio"])
    (tmp_path / "a").rename(tmp_path / "b")
    Trackers(tmp_path / "b", {}, ["trackio"])
    first, second = (run.options["name"] for run in module.runs)
    assert first == second and first.startswith("a-")


def test_a_tracker_that_fails_ends_no_run(
    tmp_path: Path, fake: Callable[[str], Fake], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module, other = fake("wandb"), fake("trackio")
    trackers = Trackers(tmp_path, {}, ["wandb", "trackio"])
    monkeypatch.setattr(module.runs[0], "log", lambda values, step: 1 / 0)
    for values in ROWS:
        trackers.write(values)
    trackers.close()
    assert len(other.steps) == len(ROWS) and other.runs[0].finished
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--wandb failed and gets no more rows: ZeroDivisionError: division by zero" in said


def test_seeds_whose_tracker_cannot_start_leave_the_directory_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    for _ in range(2):
        with pytest.raises(ValueError, match="needs the extra"):
            train(settings(seeds=2, wandb=True), tmp_path / "run")


def test_every_tracker_has_a_setting():
    assert settings(**dict.fromkeys(STARTS, True)).trackers.wanted == list(STARTS)
    assert settings().trackers.wanted == []
