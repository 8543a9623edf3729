"""The scripts beside the package, as far as they can be tested without PyTorch."""

import contextlib
import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "comparisons" / "recurrent_ppo"


def script(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def train_sb3() -> types.ModuleType:
    return script("train_sb3")


@pytest.fixture(scope="module")
def beside() -> types.ModuleType:
    return script("beside")


@pytest.mark.parametrize(("name", "longest"), [("cartpole", 500), ("pendulum", 200), ("tmaze-10", 33)])
def test_its_environments_are_those_of_the_package(train_sb3, name, longest):
    env = train_sb3.make(name)
    assert env.spec.max_episode_steps == longest
    assert env.observation_space.contains(env.reset(seed=0)[0])


def test_runs_that_ended_are_not_repeated(train_sb3):
    rows = [
        {"env": "cartpole", "seed": 0, "threads": 1, "steps": 100_096, "last": True},
        {"env": "cartpole", "seed": 0, "threads": 2, "steps": 100_096, "last": False},
        {"env": "cartpole", "seed": 1, "threads": 1, "steps": 50_048, "last": True},
    ]
    found = train_sb3.pending(rows, ["cartpole"], 2, [1, 2], 100_000)
    assert found == [("cartpole", 0, 2), ("cartpole", 1, 1), ("cartpole", 1, 2)]


def test_the_time_of_evaluations_is_told_apart(train_sb3):
    now = [0.0]
    watch = train_sb3.Stopwatch(clock=lambda: now[0])
    now[0] = 6.0

    def work():
        now[0] = 10.0
        return "done"

    assert watch.evaluating(work) == "done"
    assert watch.rates(60) == {"steps_per_s": 10.0, "steps_per_s_with_evaluations": 6.0, "seconds": 10.0}


def test_a_policy_is_evaluated_on_whole_episodes_of_the_same_seeds(train_sb3, monkeypatch):
    class Generator:
        """As much of `torch` as an evaluation uses."""

        manual_seed = staticmethod(lambda seed: None)
        random = types.SimpleNamespace(fork_rng=lambda devices: contextlib.nullcontext())

    class Remembering:
        """Walks through a T-maze by what it saw at first, which it carries in its state."""

        def predict(self, observation, *, state, episode_start, deterministic):
            way = int(observation) if episode_start[0] else state
            return (1 + way if int(observation) == 3 else 0), way

    monkeypatch.setitem(sys.modules, "torch", Generator)
    assert train_sb3.mean_return(Remembering(), "tmaze-10", 20, "greedy") == 1.0


def evaluations(values, **common):
    return [common | {"steps": steps, "greedy": value, "sampled": value - 1, **rate} for steps, value, rate in values]


def test_both_sides_are_read_at_the_same_budget(beside, tmp_path):
    rate = {"steps_per_s": 200.0, "steps_per_s_with_evaluations": 100.0, "last": False}
    rows = []
    for seed, end in enumerate((30.0, 50.0, 40.0)):
        values = [(4_096, 1.0, rate), (10_112, end, rate | {"last": True})]
        rows += evaluations(values, env="cartpole", seed=seed, threads=2)
    (tmp_path / "sb3.json").write_text(json.dumps(rows))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"algorithm": "ppo", "network": {"memory": "lru"}}))
    (run / "metrics.csv").write_text(
        "env_steps,eval_greedy,eval_sampled,seconds\n5000,10,20,5\n9000,30,25,10\n20000,99,99,20\n"
    )
    groups = {**beside.sb3_rows(tmp_path / "sb3.json"), **beside.own_rows([("cartpole", run)])}
    theirs, ours = beside.beside(groups, 10_000)
    assert theirs["agent"] == "RecurrentPPO, 2 threads" and theirs["runs"] == 3
    assert theirs["greedy"] == "40 [30, 50]" and theirs["sampled"] == "39 [29, 49]" and theirs["steps"] == 10_112
    assert ours["agent"] == "memoroids ppo, lru" and (ours["steps"], ours["greedy"], ours["sampled"]) == (
        9_000,
        "30",
        "25",
    )
    assert ours["steps/s with evaluations"] == "900" and ours["steps/s"] == ""
    lines = beside.markdown([theirs, ours]).splitlines()
    assert len(lines) == 4 and lines[3].startswith("| cartpole | memoroids ppo, lru | 1 | 9000 | 30 | 25 |")


def test_the_table_is_printed_from_the_command_line(beside, tmp_path, capsys):
    (tmp_path / "sb3.json").write_text("[]")
    beside.main([str(tmp_path / "sb3.json"), "--steps", "10"])
    assert capsys.readouterr().out.startswith("| env | agent |")
    with pytest.raises(SystemExit):
        beside.main([str(tmp_path / "sb3.json"), "--steps", "10", "--runs", "nowhere"])
    assert "--runs takes NAME=DIR, got nowhere" in capsys.readouterr().err
