"""Nothing lost, nothing silently wrong: kills, damage, full disks, misbehaving environments, through whole runs."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import damages
import kills
from finished_runs import Finished
from memoroids.agents.dqn import DQNConfig
from memoroids.agents.ppo import PPOConfig
from memoroids.cli.main import main
from memoroids.envs import EnvironmentFault
from memoroids.runs import checkpoint, metrics, recorder
from memoroids.runs.checkpoint import CheckpointError
from memoroids.runs.load import evaluate_run, load
from memoroids.runs.run_directory import CHECKPOINTS, METRICS, WARNINGS, load_config
from memoroids.runs.settings import TrainConfig
from memoroids.runs.train import train

FAULTY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FAULTY))


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "env": "faulty:test-faulty/Faulty-v0",
        "memory": "lru",
        "memory_sizes": {"state_size": 4},
        "width": 8,
        "random_episodes": 6,
        "updates_per_episode": 1,
        "epsilon_start": 0.2,
        "epsilon_end": 0.01,
        "epsilon_decay": 1.0,
        "train_episodes": 12,
        "batch_size": 20,
        "buffer_size": 400,
        "num_envs": 3,
        "eval_every": 4,
        "eval_episodes": 2,
        "final_episodes": 3,
        "checkpoint_every": 4,
        "agent": DQNConfig(learning_rate=1e-2, warmup=0, polyak=0.995),
    }
    return TrainConfig.of(**settings | changes)


@pytest.fixture(autouse=True)
def not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes as long as ten of these updates, and tests/runs/test_train.py looks at it."""
    monkeypatch.setattr(recorder, "draw_curve", lambda path, rows, title, way, **more: path.touch())


def assert_same(left: Path, right: Path) -> None:
    whole, mine = kills.state(left), kills.state(right)
    assert [name for name in whole if whole[name] != mine.get(name)] == []


# --- kills ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["host", "device"])
@pytest.mark.slow
def test_a_run_killed_inside_a_checkpoint_and_between_two_ends_bit_for_bit_as_one_that_was_not(
    device: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Two processes, one compilation; tests/kills.py compiles in each.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    settings = kills.settings(device=device, train_episodes=40, checkpoint_every=10)
    settings = settings.replace(random_episodes=10, eval_every=5, eval_episodes=2)
    train(settings, tmp_path / "whole")
    kills.begin(settings, tmp_path / "parts")
    dice = random.Random(0)
    # The first one dies somewhere in writing its first checkpoint: there is none to go on from.
    assert kills.resume(tmp_path / "parts", (None, 1, dice.randrange(2_000, 40_000))) == "writing a checkpoint"
    left = sorted(path.name for path in (tmp_path / "parts" / CHECKPOINTS).iterdir())
    assert left == ["000000020.partial"]
    # The second one in its third: the file of metrics is ahead of the checkpoint by a row or two.
    assert kills.resume(tmp_path / "parts", (None, 3, dice.randrange(2_000, 40_000))) == "writing a checkpoint"
    train(settings, tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    assert not list((tmp_path / "parts" / CHECKPOINTS).glob("*.partial"))


def test_a_finished_run_without_its_checkpoints_is_refused_and_keeps_its_metrics(
    tmp_path: Path, finished: Finished, capsys: pytest.CaptureFixture[str]
):
    settings = config()
    finished(settings, tmp_path / "run")
    before = (tmp_path / "run" / METRICS).read_bytes()
    shutil.rmtree(tmp_path / "run" / CHECKPOINTS)
    with pytest.raises(CheckpointError, match="whose checkpoints are gone"):
        train(settings, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / METRICS).read_bytes() == before
    (tmp_path / "run" / "summary.json").unlink()
    train(settings, tmp_path / "run", resume=True)
    assert "has no checkpoint: the run starts again" in capsys.readouterr().err


def test_rows_that_were_written_after_the_checkpoint_are_cut_where_it_knows_to(tmp_path: Path, finished: Finished):
    settings = config()
    finished(settings, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    newest = checkpoint.latest(tmp_path / "parts" / CHECKPOINTS)
    shutil.rmtree(newest)
    path = tmp_path / "parts" / METRICS
    before = path.read_bytes()
    offset = checkpoint.counters(checkpoint.latest(tmp_path / "parts" / CHECKPOINTS))["metrics_bytes"]
    path.write_bytes(before[:-7])  # torn in its last line
    train(settings, tmp_path / "parts", resume=True)
    after = path.read_bytes()
    assert offset < len(before) and after[:offset] == before[:offset]
    assert [row["episode"] for row in metrics.read(path)] == [4, 8, 12]
    assert_same(tmp_path / "whole", tmp_path / "parts")


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_damaged_checkpoints_are_refused_and_the_one_before_is_used(tmp_path: Path):
    found = damages.damages(tmp_path, count=30, seed=0)
    assert [one for one in found if one.problem is not None] == []


def test_settings_that_were_changed_after_the_checkpoint_are_refused_by_name(tmp_path: Path, finished: Finished):
    finished(config(), tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace('"polyak": 0.995', '"polyak": 0.905'))
    assert load_config(tmp_path / "run").agent.polyak == 0.905
    with pytest.raises(CheckpointError, match=r"its run has polyak 0\.995, the settings here say 0\.905"):
        load(tmp_path / "run")


@pytest.mark.parametrize("best", [0, 1, 2])
@pytest.mark.one_in(3)
def test_the_best_parameters_are_kept_beside_the_newest(best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = config()
    seen: list[Any] = []

    def evaluated(self: Any, params: Any, episodes: int, seed_of: Any, ended: Any = None) -> Any:
        seen.append([np.array(leaf) for leaf in _leaves(params)])
        return Evaluations(Evaluation(np.full(episodes, float(len(seen) - 1 == best)), np.ones(episodes, int)))

    from memoroids.acting.evaluation import Evaluation, Evaluations, Evaluator

    monkeypatch.setattr(Evaluator, "__call__", evaluated)
    train(settings, tmp_path / "run")
    counters = checkpoint.counters(checkpoint.latest(tmp_path / "run" / CHECKPOINTS))
    assert counters["best"] == [4 * (best + 1), 1.0]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["best_episode"] == 4 * (best + 1)
    _, _, params = load(tmp_path / "run", best=True)
    for mine, theirs in zip(_leaves(params), seen[best], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    _, _, newest = load(tmp_path / "run")
    for mine, theirs in zip(_leaves(newest), seen[2], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def _leaves(tree: Any) -> list[Any]:
    import jax

    return jax.tree.leaves(tree)


def test_as_many_checkpoints_are_kept_as_the_settings_say(tmp_path: Path):
    train(config(keep_checkpoints=3, checkpoint_every=2), tmp_path / "run")
    assert [path.name for path in sorted((tmp_path / "run" / CHECKPOINTS).iterdir())] == [
        f"{step:09d}" for step in (14, 16, 18)
    ]


def test_a_run_directory_that_names_code_is_not_imported_unless_it_is_trusted(
    tmp_path: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    finished(config(), tmp_path / "run")
    path, mark = tmp_path / "run" / "config.json", tmp_path / "executed"
    values = json.loads(path.read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    for group, field, name in (
        ("env", "id", "evil:Thing-v0"),
        ("network", "memory", "evil:thing"),
        ("env", "id", "device:evil:thing"),
        (None, "algorithm", "evil:thing"),
    ):
        changed = values | ({field: name} if group is None else {group: values[group] | {field: name}})
        path.write_text(json.dumps(changed))
        for command in ("evaluate", "resume", "sensitivity"):
            with pytest.raises(SystemExit) as stop:
                main([command, str(tmp_path / "run")])
            said = capsys.readouterr().err
            assert stop.value.code == 2 and "--trust" in said and "evil" in said and said.count("\n") == 1
            assert not mark.exists()
    assert "evil" not in sys.modules


def test_nothing_is_imported_from_where_a_run_is_read(tmp_path: Path, finished: Finished):
    finished(config(), tmp_path / "run")
    mark = tmp_path / "executed"
    for name in ("popgym", "matplotlib", "orbax", "gymnax", "tensorboardX", "sitecustomize"):
        (tmp_path / "run" / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\n")
    command = [
        sys.executable,
        "-P",
        "-c",
        "from memoroids.cli.main import main; main()",
        "evaluate",
        ".",
        "--episodes",
        "1",
    ]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path and "envs" not in path)}
    done = subprocess.run(command, cwd=tmp_path / "run", capture_output=True, text=True, env=env)
    assert done.returncode == 2 and "--trust" in done.stderr  # its environment is one of the tests
    values = json.loads((tmp_path / "run" / "config.json").read_text())
    plain = values | {"env": values["env"] | {"id": "CartPole-v1", "options": {}}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(plain))
    done = subprocess.run(command, cwd=tmp_path / "run", capture_output=True, text=True, env=env)
    assert done.returncode == 1 and "foreign checkpoint" in done.stderr, done.stderr
    assert not mark.exists()
    assert config().replace(env="gymnax:CartPole-v1", env_options={}).own_code == ["gymnax:CartPole-v1"]


def test_a_run_with_code_of_its_own_is_evaluated_where_it_is_trusted(
    tmp_path: Path, finished: Finished, capsys: pytest.CaptureFixture[str]
):
    finished(config(), tmp_path / "run")
    main(["evaluate", str(tmp_path / "run"), "--episodes", "2", "--trust", "--best"])
    assert "mean return" in capsys.readouterr().out
    assert evaluate_run(tmp_path / "run", 2, 0, best=True).greedy.lengths.shape == (2,)


def test_a_run_that_goes_on_elsewhere_says_that_it_is_not_the_same_any_more(
    tmp_path: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    finished(config(), tmp_path / "run")
    from memoroids.runs import train as training

    elsewhere = {**training.conditions(), "machine": "another, 64 cores"}
    monkeypatch.setattr(training, "conditions", lambda: elsewhere)
    train(config(), tmp_path / "run", resume=True)
    said = capsys.readouterr().err
    assert "bit for bit: machine was" in said and "now another, 64 cores" in said and said.count("\n") == 1


# --- disks ----------------------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_for_a_checkpoint_leaves_the_one_before_and_no_half_of_one(
    tmp_path: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch
):
    settings = config()
    finished(settings, tmp_path / "whole")
    synced, calls = checkpoint._sync, []

    def full(directory: Path) -> None:
        calls.append(directory)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(directory)

    monkeypatch.setattr(checkpoint, "_sync", full)
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*000000014: .*No space left on device"):
        train(settings, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / CHECKPOINTS).iterdir()] == ["000000010"]
    train(settings, tmp_path / "run", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
def test_a_disk_that_is_full_for_the_metrics_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    run.mkdir()
    (run / METRICS).symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device") as error:
        train(config(), run)
    assert error.value.filename == str(run / METRICS)


# --- environments ---------------------------------------------------------------------------------------------------


def test_a_run_is_the_same_with_any_number_of_workers(tmp_path: Path, finished: Finished):
    finished(config(), tmp_path / "0")
    for processes in (1, 2):
        train(config(processes=processes), tmp_path / f"{processes}")
        assert_same(tmp_path / "0", tmp_path / f"{processes}")


FAULT = {"every": 5, "rest": 2, "at": 2}


@pytest.mark.parametrize(
    ("fault", "changes"),
    [("raise", {}), ("outside", {"check_bounds": True}), ("hang", {"time_limit": 0.2}), ("exit", {"processes": 1})],
    ids=["raises", "out of space", "hangs", "dies"],
)
@pytest.mark.one_in(2)
def test_a_run_goes_on_without_the_episodes_that_were_spoiled(
    fault: str, changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    settings = config(env_options={"fault": fault, **FAULT}, **changes)
    outcome = train(settings, tmp_path / "run")
    assert outcome.final is not None and len(outcome.final.returns) == settings.evaluation.final_episodes
    assert [row["episode"] for row in outcome.rows] == [4, 8, 12]
    counters = checkpoint.counters(checkpoint.latest(tmp_path / "run" / CHECKPOINTS))
    said = [line for line in capsys.readouterr().err.splitlines() if "dropped" in line]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["faults"] == len(said) > 3
    assert (counters["random"], counters["episode"]) == (
        settings.budget.random_episodes,
        settings.budget.train_episodes,
    )
    assert sum(counters["numbers"]) > settings.budget.random_episodes + settings.budget.train_episodes
    # Those of evaluations are dropped as well, and stand in for no episode of training.
    noted = (tmp_path / "run" / "warnings.txt").read_text().splitlines()
    assert [line.partition(": ")[2] for line in noted if "dropped" in line] == [
        line.removeprefix("memoroids: ") for line in said
    ]


def test_observations_out_of_bounds_are_taken_unless_they_are_to_be_dropped(tmp_path: Path):
    settings = config(env_options={"fault": "outside", **FAULT})
    assert train(settings, tmp_path / "run").final is not None
    assert checkpoint.counters(checkpoint.latest(tmp_path / "run" / CHECKPOINTS))["faults"] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {
            "algorithm": "ppo",
            "agent": PPOConfig(),
            "random_episodes": 0,
            "num_envs": 4,
            "train_episodes": 60,
            "env_options": {"fault": "raise", "every": 11, "rest": 2},
        },
        {"eval_every": 1, "eval_episodes": 4, "env_options": {"fault": "raise", "every": 13, "rest": 4}},
    ],
    ids=["rollouts", "evaluations"],
)
@pytest.mark.one_in(2)
def test_episodes_that_end_well_between_two_rollouts_or_evaluations_count(changes: dict[str, Any], tmp_path: Path):
    assert train(config(max_faults=2, checkpoint_every=100, **changes), tmp_path / "run").final is not None
    counters = checkpoint.counters(checkpoint.latest(tmp_path / "run" / CHECKPOINTS))
    assert counters["faults"] > 3


def test_too_many_spoiled_episodes_in_a_row_end_the_command_with_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    argv = "train --env faulty:test-faulty/Faulty-v0 --memory mlp --width 8 --random-episodes 4 --train-episodes 8"
    argv += " --run-dir run --max-faults 3 --eval-episodes 2 --env-options fault shape every 1 at 2"
    with pytest.raises(SystemExit) as stop:
        main(argv.split())
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1 and len(lines) == 4 and "Traceback" not in "".join(lines)
    assert lines[-1].startswith(
        "memoroids: 4 episodes in a row were dropped, --max-faults 3 allows no more; the last: "
    )
    assert "returned an observation at step 2 that is not in Box" in lines[-1]
    assert checkpoint.counters(checkpoint.latest(tmp_path / "run" / CHECKPOINTS))["faults"] == 4


@pytest.mark.parametrize("stream", ["random", "training", "rollouts"])
@pytest.mark.one_in(3)
def test_a_run_that_ended_by_faults_goes_on_to_as_many_episodes_as_it_was_to_have(
    stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import faulty

    first = {"random": 3, "training": 9, "rollouts": 6}[stream]
    # The simulator is down for a while: every episode from then on is spoiled.
    begun: list[int] = []
    reset = faulty.Faulty.reset

    def down(self: Any, **keywords: Any) -> Any:
        begun.append(1)
        if first < len(begun) <= first + 9:
            raise RuntimeError("down")
        return reset(self, **keywords)

    monkeypatch.setattr(faulty.Faulty, "reset", down)
    changes: dict[str, Any] = {"max_faults": 5, "checkpoint_every": 100, "eval_every": 100}
    if stream == "rollouts":
        changes |= {"algorithm": "ppo", "agent": PPOConfig(), "random_episodes": 0, "num_envs": 4, "train_episodes": 16}
    settings = config(**changes)
    with pytest.raises(EnvironmentFault, match="6 episodes in a row"):
        train(settings, tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(FAULTY))
    outcome = train(settings, tmp_path / "run", resume=True)
    assert outcome.final is not None and len(outcome.final.returns) == settings.evaluation.final_episodes
    counters = checkpoint.counters(checkpoint.latest(tmp_path / "run" / CHECKPOINTS))
    # A rollout may end more episodes than the budget asks for.
    surplus = counters["episode"] - settings.budget.total
    assert counters["random"] == settings.budget.random_episodes
    assert 0 <= surplus < 4 * 128 if stream == "rollouts" else surplus == 0


def test_faults_of_the_final_evaluation_count_once_however_often_it_is_played(tmp_path: Path):
    settings = config(env_options={"fault": "raise", "every": 3, "rest": 1}, final_episodes=20, max_faults=50)
    train(settings, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "before")
    (tmp_path / "run" / "summary.json").unlink()
    train(settings, tmp_path / "run", resume=True)
    assert_same(tmp_path / "before", tmp_path / "run")
    again = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert again["faults"] > checkpoint.counters(checkpoint.latest(tmp_path / "run" / CHECKPOINTS))["faults"]


def test_a_warning_that_cannot_be_written_down_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    run.mkdir()
    (run / WARNINGS).symlink_to("/dev/full")
    assert train(config(env_options={"fault": "raise", **FAULT}), run).final is not None
    assert "dropped episode" in capsys.readouterr().err


def test_an_environment_whose_state_does_not_follow_from_its_seed_goes_on_at_the_next_episode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    settings = config(num_envs=3)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", watch=_stop_after(4))
    before = checkpoint.counters(checkpoint.latest(tmp_path / "run" / CHECKPOINTS))
    assert before["collection"]["open"]
    import faulty

    look = faulty.Faulty._look
    monkeypatch.setattr(faulty.Faulty, "_look", lambda self: look(self) * np.float32(0.5))
    outcome = train(settings, tmp_path / "run", resume=True)
    assert outcome.rows[-1]["episode"] == settings.budget.train_episodes and outcome.final is not None
    said = capsys.readouterr().err
    assert "diverged when its episodes in progress were replayed" in said and "start again" in said
    after = checkpoint.counters(checkpoint.latest(tmp_path / "run" / CHECKPOINTS))
    assert after["numbers"] == [6, 12] and after["env_steps"] > before["env_steps"]


def _stop_after(episode: int) -> Callable[[Any], None]:
    def watch(progress: Any) -> None:
        if progress.counters.episode > episode:
            raise KeyboardInterrupt

    return watch
