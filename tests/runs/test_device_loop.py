"""The compiled loop: one run, several seeds, resumed runs, several devices, all through the public `train`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pytest

from compilations import compiled, compiled_between
from finished_runs import Finished
from memoroids.agents.dqn import DQNConfig
from memoroids.agents.ppo import PPOConfig
from memoroids.agents.pqn import PQNConfig
from memoroids.envs import EnvironmentFault
from memoroids.runs import checkpoint, metrics, recorder
from memoroids.runs.device_loop import DeviceRun
from memoroids.runs.load import evaluate_run, load
from memoroids.runs.progress import Outcome
from memoroids.runs.run_directory import CHECKPOINTS, METRICS, seed_dir
from memoroids.runs.settings import TrainConfig
from memoroids.runs.train import train, train_through_one_program

LEARNERS = {
    "dqn": {
        "random_episodes": 8,
        "updates_per_episode": 1,
        "epsilon_decay": 1.0,
        "batch_size": 12,
        "buffer_size": 200,
        "agent": DQNConfig(warmup=0),
    },
    "ppo": {"random_episodes": 0, "agent": PPOConfig(epochs=2, minibatches=2)},
    "pqn": {"random_episodes": 0, "agent": PQNConfig(epochs=2, minibatches=2)},
}


def config(algorithm: str = "dqn", **changes) -> TrainConfig:
    settings = {
        "env": "device:toy_env:Lengths",
        "algorithm": algorithm,
        "memory": "ffm",
        "memory_sizes": {"trace_size": 4, "context_size": 2},
        "width": 8,
        "num_envs": 4,
        "rollout": 6,
        "train_episodes": 40,
        "eval_every": 10,
        "eval_episodes": 4,
        "final_episodes": 6,
        "checkpoint_every": 20,
    }
    return TrainConfig.of(**(settings | LEARNERS[algorithm] | changes))


@pytest.fixture(autouse=True)
def not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes as long as ten of these updates, and tests/runs/test_train.py looks at it."""
    monkeypatch.setattr(recorder, "draw_curve", lambda path, rows, title, way, **more: path.touch())


def rows_of(path: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k not in metrics.TIMES} for row in metrics.read(path / METRICS)]


def learned(path: Path) -> list[np.ndarray]:
    _, _, params = load(path)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("algorithm", LEARNERS)
@pytest.mark.one_in(3)
def test_a_run_is_written_as_host_runs_are(algorithm: str, tmp_path: Path, finished: Finished):
    settings = config(algorithm)
    finished(settings, tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "metrics.csv", "baseline.json", "curve.png", "summary.json", "checkpoints", "lock"}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    rows = metrics.read(tmp_path / "run" / METRICS)
    assert summary["final_episodes"] == 6
    assert summary["episode"] == rows[-1]["episode"] >= 40
    assert summary["random"] == settings.budget.random_episodes
    assert [row["episode"] // 10 for row in rows] == [1, 2, 3, 4]
    for row in rows:
        # Every episode has 1 to 5 transitions, and pays at most 2.4 for each.
        assert row["episode"] <= row["env_steps"]
        assert -0.1 <= row["eval_return"] <= 5 * 2.4
        assert np.isfinite(row["loss"]) and row["skipped"] == 0
    if algorithm == "dqn":
        assert [row["updates"] for row in rows] == [row["episode"] for row in rows]
    for evaluation in evaluate_run(tmp_path / "run", 5, 0).named(settings.evaluation.stochastic).values():
        assert len(evaluation.returns) == 5 and (evaluation.lengths <= 5).all()


@pytest.mark.parametrize("algorithm", ["dqn", "ppo"])
@pytest.mark.one_in(2)
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(algorithm: str, tmp_path: Path, finished: Finished):
    finished(config(algorithm), tmp_path / "whole")
    shown = 0

    def watch(progress) -> None:
        nonlocal shown
        shown += 1
        if shown == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(algorithm, checkpoint_every=6), tmp_path / "parts", watch=watch)
    halfway = checkpoint.counters(checkpoint.latest(tmp_path / "parts" / CHECKPOINTS))
    assert 0 < halfway["episode"] < 40
    train(config(algorithm, checkpoint_every=6), tmp_path / "parts", resume=True)
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "parts")
    same(learned(tmp_path / "whole"), learned(tmp_path / "parts"))


@pytest.mark.parametrize(
    ("algorithm", "mapping"), [pytest.param("dqn", "loop", marks=pytest.mark.slow), ("dqn", "vmap")]
)
def test_seeds_do_not_depend_on_each_other(algorithm: str, mapping: str, tmp_path: Path, finished: Finished):
    finished(config(algorithm, seeds=2, mapping=mapping), tmp_path / "both")
    outcome = train(config(algorithm, seeds=2, seed=1, mapping=mapping), tmp_path / "other")
    assert isinstance(outcome, Outcome) and outcome.final is not None and len(outcome.final.returns) == 12
    # Seed 1 beside seed 0, and beside seed 2.
    assert rows_of(seed_dir(tmp_path / "both", 1)) == rows_of(seed_dir(tmp_path / "other", 1))
    same(learned(seed_dir(tmp_path / "both", 1)), learned(seed_dir(tmp_path / "other", 1)))
    train(config(algorithm, seed=1), tmp_path / "recomputed")
    alone, mine = rows_of(tmp_path / "recomputed"), rows_of(seed_dir(tmp_path / "both", 1))
    if mapping == "loop":
        assert alone == mine
        same(learned(tmp_path / "recomputed"), learned(seed_dir(tmp_path / "both", 1)))
    else:
        assert [row["env_steps"] for row in alone] == [row["env_steps"] for row in mine]
        for name in ("loss", "grad_norm", "train_return"):
            np.testing.assert_allclose([r[name] for r in alone], [r[name] for r in mine], rtol=1e-3, atol=1e-4)
    assert rows_of(seed_dir(tmp_path / "both", 0)) != mine


def test_runs_that_share_a_program_are_each_the_run_that_it_would_be_alone(tmp_path: Path, finished: Finished):
    seeds = (0, 7)  # as the seeds of a grid may be, these do not follow each other
    paths = [tmp_path / "together" / str(seed) for seed in seeds]
    outcomes = train_through_one_program([config(seed=seed) for seed in seeds], paths)
    for seed, path, outcome in zip(seeds, paths, outcomes, strict=True):
        assert outcome.final is not None and outcome.run_dir == path and load(path)[0] == config(seed=seed)
        finished(config(seed=seed), tmp_path / str(seed))
        assert rows_of(path) == rows_of(tmp_path / str(seed))
        same(learned(path), learned(tmp_path / str(seed)))
    with pytest.raises(ValueError, match="differ in seeds and numbers of the agent"):
        train_through_one_program([config(), config(width=4)], [tmp_path / "a", tmp_path / "b"])
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("mapping", "lost"),
    [
        pytest.param("loop", 1, id="apart"),
        pytest.param("loop", 9, id="anew", marks=pytest.mark.slow),
        pytest.param("vmap", 1, id="mapped", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_seeds_go_on_from_where_each_of_them_was(
    mapping: Literal["loop", "vmap"], lost: int, tmp_path: Path, finished: Finished
):
    settings = config(seeds=2, checkpoint_every=4, mapping=mapping)
    finished(config(seeds=2, mapping=mapping), tmp_path / "whole")
    shown = 0

    def watch(progress) -> None:
        nonlocal shown
        shown += 1
        if shown == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "parts", watch=watch)
    # As if it had been killed between the checkpoints of one seed and the other's.
    written = sorted((seed_dir(tmp_path / "parts", 1) / CHECKPOINTS).iterdir())
    assert len(written) > 1
    for path in written[-lost:]:
        shutil.rmtree(path)
    outcome = train(settings, tmp_path / "parts", resume=True)
    assert outcome.final is not None and len(outcome.final.returns) == 12
    for seed in (0, 1):
        assert rows_of(seed_dir(tmp_path / "whole", seed)) == rows_of(seed_dir(tmp_path / "parts", seed))
        same(learned(seed_dir(tmp_path / "whole", seed)), learned(seed_dir(tmp_path / "parts", seed)))
    again = train(settings, tmp_path / "parts", resume=True)
    np.testing.assert_array_equal(again.final.returns, outcome.final.returns)


def test_prioritised_draws_change_learning_and_nothing_else(tmp_path: Path, finished: Finished):
    finished(config(), tmp_path / "uniform")
    train(config(prioritised=True), tmp_path / "by errors")
    uniform, prioritised = rows_of(tmp_path / "uniform"), rows_of(tmp_path / "by errors")
    assert [r["updates"] for r in uniform] == [r["updates"] for r in prioritised]
    assert [r["loss"] for r in uniform] != [r["loss"] for r in prioritised]
    assert all(np.isfinite(r["loss"]) for r in prioritised)


def test_steps_can_end_training(tmp_path: Path):
    train(config("pqn", steps=200, eval_every=20, epsilon_decay=1.0), tmp_path / "run")
    rows = metrics.read(tmp_path / "run" / METRICS)
    assert 200 <= rows[-1]["env_steps"] <= 200 + 4 * 6
    assert rows[-1]["episode"] > 40
    # ε falls with the steps.
    assert rows[0]["epsilon"] > rows[-1]["epsilon"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"devices": 64, "num_envs": 64, "tapes": 4, "batch_size": 64}, "devices must divide tapes"),
        (
            {"devices": 64, "num_envs": 64, "tapes": 64, "batch_size": 64, "buffer_size": 9999},
            "devices 64 is more than the",
        ),
        ({"devices": 3, "seeds": 4}, "devices must divide seeds: 4 seeds on 3 devices"),
        ({"devices": 3}, "devices must divide num_envs: 4 num_envs on 3 devices"),
        ({"tapes": 5}, "tapes must divide batch_size"),
        ({"batching": "segments"}, "batching segments is for host environments; use --batching tape"),
        ({"algorithm": "ppo", "agent": DQNConfig()}, "agent holds DQNConfig, but the algorithm ppo takes PPOConfig"),
        ({"algorithm": "ppo"}, "random_episodes 8 is for agents with replay: ppo has none"),
        ({"agent": PPOConfig(epochs=9)}, "agent holds PPOConfig, but the algorithm dqn takes DQNConfig"),
        ({"epochs": 9}, "epochs is a setting of ppo and pqn, but the algorithm is dqn"),
        ({"buffer_size": 20}, "raise --buffer-size or lower --num-envs"),
        ({"env": "popgym-RepeatFirstEasy-v0"}, "rollout 6 is for device environments, or for agents without replay"),
        (
            {"env": "popgym-RepeatFirstEasy-v0", "rollout": None, "mapping": "vmap"},
            "mapping vmap needs a device environment",
        ),
        ({"env": "device:NoSuchTask"}, "NoSuchTask"),
        ({"env": "device:toy_env:Absent"}, "Absent"),
        ({"env_options": {"bogus": 1}}, "bogus"),
        ({"env_options": {"floats": True}}, "use --algorithm ppo"),
    ],
)
def test_what_cannot_be_served_is_one_line_before_anything_is_written(changes, said: str, tmp_path: Path):
    with pytest.raises(ValueError) as error:
        train(config().replace(**changes), tmp_path / "run")
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


_SCRIPT = """
import sys
from pathlib import Path
from typing import Literal
sys.path[:0] = {folders!r}
{before}
from test_device_loop import config
from memoroids.runs.train import train, train_through_one_program
train(config({algorithm!r}, **{changes!r}), Path(sys.argv[1]))
"""


def run_on(
    devices: int, path: Path, algorithm: str, changes: dict, before: str = "", names: dict[str, str] | None = None
) -> subprocess.Popen:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    script = _SCRIPT.format(
        folders=[str(path) for path in Path(__file__).parents[:2]], algorithm=algorithm, changes=changes, before=before
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | (names or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def close(a: list[dict[str, float]], b: list[dict[str, float]]) -> None:
    assert [r["env_steps"] for r in a] == [r["env_steps"] for r in b]
    for name in ("loss", "q_mean", "grad_norm", "train_return", "eval_return"):
        np.testing.assert_allclose([r[name] for r in a], [r[name] for r in b], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("algorithm, changes", [("dqn", {"tapes": 4})])
@pytest.mark.slow
def test_four_devices_learn_what_one_does(algorithm: str, changes: dict, tmp_path: Path):
    short = {"train_episodes": 20, **changes}
    four = run_on(4, tmp_path / "four", algorithm, {**short, "devices": 4})
    said, _ = four.communicate(timeout=300)
    assert four.returncode == 0, said
    train(config(algorithm, **short), tmp_path / "one")
    close(rows_of(tmp_path / "one"), rows_of(tmp_path / "four"))


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    changes = {"train_episodes": 20, "devices": 2}
    join = "from memoroids.runs.placement import join_processes; join_processes()"
    names = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    both = [
        run_on(1, tmp_path / "both", "ppo", changes, join, names | {"JAX_PROCESS_ID": str(number)}) for number in (0, 1)
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    train(config("ppo", train_episodes=20), tmp_path / "one")
    close(rows_of(tmp_path / "one"), rows_of(tmp_path / "both"))


def test_nothing_is_compiled_after_the_first_epochs(tmp_path):
    moments: list[tuple[int, int]] = []
    settings = config("ppo", train_episodes=120)
    train(settings, tmp_path / "run", watch=lambda p: moments.append((p.counters.episode, compiled())))
    assert compiled_between(moments, 45, 120) == 0


@pytest.mark.parametrize("algorithm", LEARNERS)
@pytest.mark.one_in(3)
def test_spoiled_episodes_are_dropped_and_counted_and_the_run_goes_on(algorithm: str, tmp_path: Path):
    outcome = train(config(algorithm, env_options={"spoiled": 0.3}), tmp_path / "run")
    assert outcome.final is not None and np.isfinite(outcome.final.returns).all()
    assert 40 <= outcome.rows[-1]["episode"] <= 40 + 4 * 3 and outcome.rows[-1]["skipped"] == 0
    assert all(np.isfinite(row["loss"]) and np.isfinite(row["eval_return"]) for row in outcome.rows)
    assert all(np.isfinite(row["train_return"]) for row in outcome.rows)
    counters = checkpoint.counters(checkpoint.latest(tmp_path / "run" / CHECKPOINTS))
    assert counters["faults"] > 5
    assert (
        "toy_env:Lengths returned a non-finite observation or reward in" in (tmp_path / "run/warnings.txt").read_text()
    )


def test_a_fault_in_one_seeds_final_evaluation_leaves_every_seed_as_it_stands(
    tmp_path: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch
):
    settings = config(seeds=2, mapping="loop", max_faults=0)
    finished(config(seeds=2, mapping="loop"), tmp_path / "whole")
    finish = DeviceRun.finish

    def down(self: DeviceRun, group: int, seed: int) -> None:
        if seed == 0:
            raise EnvironmentFault("the simulator is down")
        finish(self, group, seed)

    monkeypatch.setattr(DeviceRun, "finish", down)
    with pytest.raises(EnvironmentFault, match="is down"):
        train(settings, tmp_path / "parts")
    monkeypatch.setattr(DeviceRun, "finish", finish)
    train(settings, tmp_path / "parts", resume=True)
    for seed in (0, 1):
        assert rows_of(seed_dir(tmp_path / "whole", seed)) == rows_of(seed_dir(tmp_path / "parts", seed))
        same(learned(seed_dir(tmp_path / "whole", seed)), learned(seed_dir(tmp_path / "parts", seed)))


def test_one_of_several_seeds_is_not_written_by_another_process(tmp_path: Path):
    settings = config(seeds=2)
    refused: list[str] = []

    def watch(progress: Any) -> None:
        if not refused:
            with pytest.raises(ValueError, match=r"seed1 is being written by process") as error:
                train(config(seed=1), seed_dir(tmp_path / "run", 1), resume=True)
            refused.append(str(error.value))

    train(settings, tmp_path / "run", watch=watch)
    assert refused


def test_an_environment_that_only_misbehaves_ends_the_run_with_a_checkpoint(tmp_path: Path):
    settings = config(env_options={"spoiled": 1.0, "min_length": 3}, max_faults=9)
    with pytest.raises(EnvironmentFault, match=r"\d\d episodes in a row were dropped, --max-faults 9 allows no more"):
        train(settings, tmp_path / "run")
    assert checkpoint.counters(checkpoint.latest(tmp_path / "run" / CHECKPOINTS))["faults_in_a_row"] > 9
