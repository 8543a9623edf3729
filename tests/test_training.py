"""`memoroids.train`: the command `memoroids train` from Python, with callbacks."""

import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import memoroids
from memoroids.cli.main import main
from memoroids.runs.metrics import SPENT
from memoroids.runs.run import Run

SMALL: dict[str, Any] = {
    "algorithm": "ppo",
    "memory": "gru",
    "width": 8,
    "num_envs": 2,
    "rollout": 16,
    "minibatches": 1,
    "epochs": 1,
    "eval_every": 4,
    "eval_episodes": 2,
    "final_episodes": 2,
    "train_episodes": 12,
}


class Guess(gym.Env):
    """Episodes of four steps; the reward is 1 for repeating the first observation."""

    observation_space, action_space = gym.spaces.Discrete(2), gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.left, self.first = 4, int(self.np_random.integers(2))
        return self.first, {}

    def step(self, action: Any):
        self.left -= 1
        return 0, float(action == self.first), self.left == 0, False, {}


gym.register("test-training/Guess-v0", entry_point=Guess)


def trained(run_dir: Path, **changes: Any) -> Run:
    settings = SMALL | {"env": "test-training/Guess-v0", "progress": False, "run_dir": run_dir}
    return memoroids.train(**settings | changes)


def without_times(run: Run) -> dict[str, list[float]]:
    return {n: v.tolist() for n, v in run.metrics.items() if n not in (*SPENT, "steps_per_s", "seconds")}


def test_it_trains_what_the_command_trains(tmp_path, capsys):
    run = trained(tmp_path / "python", progress=True)
    shown = capsys.readouterr().out
    assert "training gru on test-training/Guess-v0, ppo, seed 0" in shown
    assert "finished" in shown
    assert "try:" not in shown
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items() if name != "run_dir"]
    main(["train", "--env", "test-training/Guess-v0", *options, "--run-dir", str(tmp_path / "command")])
    again = memoroids.load(tmp_path / "command")
    np.testing.assert_equal(without_times(run), without_times(again))
    assert run.config.replace(run_dir=None) == again.config.replace(run_dir=None)
    assert run.finished
    assert run.path == tmp_path / "python"


def test_callbacks_see_every_row_and_the_newest_checkpoint(tmp_path):
    rows, checkpoints = [], []
    run = trained(tmp_path / "run", on_row=rows.append, on_checkpoint=checkpoints.append)
    assert rows == run.rows
    assert [path.parent for path in checkpoints] == [run.path / "checkpoints"] * len(checkpoints)
    assert checkpoints[-1].exists()


def test_it_stops_early_with_a_checkpoint_and_can_be_resumed(tmp_path):
    run = trained(tmp_path / "run", stop=lambda row: row["episode"] >= 4)
    assert not run.finished
    assert 4 <= run.metrics["episode"][-1] < 12
    assert run.agent().act(1) in (0, 1)
    main(["resume", str(run.path)])
    np.testing.assert_equal(without_times(run), without_times(trained(tmp_path / "whole")))


def test_what_a_callback_raises_ends_the_run_with_a_checkpoint(tmp_path):
    def broken(row: dict[str, float]) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trained(tmp_path / "run", on_row=broken)
    assert memoroids.load(tmp_path / "run").agent().act(0) in (0, 1)


def test_objects_are_trained_with_and_passed_again_to_load(tmp_path):
    from memoroids.memory import REGISTRY

    def my_memory(input_size: int, output_size: int, *, key: Any) -> Any:
        return REGISTRY["gru"](input_size, output_size, key=key)

    run = trained(tmp_path / "run", env=Guess, memory=my_memory)
    by_name = trained(tmp_path / "other")
    np.testing.assert_equal(without_times(run), without_times(by_name))
    with pytest.raises(ValueError, match="which has a name: do not pass env"):
        memoroids.load(by_name.path, env=Guess)


def test_it_trains_in_a_thread(tmp_path):
    found: list[Run] = []
    thread = threading.Thread(target=lambda: found.append(trained(tmp_path / "run", progress=True)))
    thread.start()
    thread.join()
    assert found[0].finished


def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="unknown setting 'widht'; did you mean width"):
        trained(tmp_path / "run", widht=3)
    with pytest.raises(ValueError, match="unknown environment"):
        trained(tmp_path / "run", env="NoSuch-v0")
    assert not (tmp_path / "run").exists()
