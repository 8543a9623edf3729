"""Recorded episodes are those that the agent plays, chosen by their return, as pictures or as text."""

import gc
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

import memoroids
from memoroids.cli.main import main
from memoroids.runs.seeds import REPORT, environment_seeds
from memoroids.runs.settings import TrainConfig
from memoroids.viewing.recording import record


class Drifting(gym.Env):
    """Up to six steps with a drawn reward each; it paints the number of the step, or says it."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 10}
    observation_space, action_space = gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None, hidden: bool = False):
        self.render_mode = render_mode
        if hidden:
            self.metadata = {"render_modes": []}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.number, self.length = 0, int(self.np_random.integers(2, 7))
        return self._look(), {}

    def step(self, action: Any):
        self.number += 1
        reward = float(self.np_random.normal())
        return self._look(), reward, self.number == self.length, False, {}

    def _look(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def render(self):
        if self.render_mode == "ansi":
            return f"number {self.number}"
        return np.full((20, 30, 3), 40 * self.number, np.uint8)


gym.register("test-recording/Drifting-v0", entry_point=Drifting)


def settings(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "env": "test-recording/Drifting-v0",
        "algorithm": "ppo",
        "memory": "gru",
        "width": 8,
        "num_envs": 2,
        "rollout": 8,
        "minibatches": 1,
        "epochs": 1,
        "train_episodes": 4,
        "eval_every": 4,
        "eval_episodes": 2,
        "final_episodes": 2,
    }
    return TrainConfig.of(**values | changes)


def by_hand(run: Path, episodes: int) -> dict[int, tuple[float, int]]:
    """Seed → return and length of greedy episodes, in a loop of our own."""
    agent, env, found = memoroids.load(run).agent(stochastic=False), Drifting(), {}
    seed_of = environment_seeds(0, REPORT, 0)
    for number in range(episodes):
        agent.reset()
        observation, _ = env.reset(seed=seed_of(number))
        total, length, over = 0.0, 0, False
        while not over:
            observation, reward, over, _, _ = env.step(agent.act(observation))
            total, length = total + reward, length + 1
        found[seed_of(number)] = total, length
    return found


@pytest.mark.parametrize(("which", "rank"), [("best", -1), ("worst", 0), ("median", 2)])
def test_the_chosen_episode_is_painted_step_by_step(which, rank, finished, tmp_path):
    run = finished(settings(), tmp_path / "run")
    played = by_hand(run, 5)
    seed, (total, length) = sorted(played.items(), key=lambda item: item[1][0])[rank]
    done = record(run, which=which, episodes=5)
    assert done.path == run / f"recorded-{which}.gif"
    assert (done.seed, done.total) == (seed, pytest.approx(total))
    np.testing.assert_allclose(done.returns, [total for total, _ in played.values()])
    with Image.open(done.path) as picture:
        assert picture.n_frames == length + 1
        assert picture.info["duration"] == 100
        for number in range(picture.n_frames):
            picture.seek(number)
            assert picture.convert("RGB").getpixel((5, 5)) == (40 * number,) * 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_an_mp4_has_a_picture_for_each_step(finished, tmp_path):
    reading = pytest.importorskip("imageio.v3")
    pytest.importorskip("imageio_ffmpeg")
    run = finished(settings(), tmp_path / "run")
    seed, (_, length) = max(by_hand(run, 3).items(), key=lambda item: item[1][0])
    done = record(run, tmp_path / "episode.mp4", episodes=3)
    assert done.seed == seed
    pictures = reading.imread(done.path)
    assert len(pictures) == length + 1 and pictures.shape[1] % 2 == pictures.shape[2] % 2 == 0
    assert pictures[0].std() > 5
    gc.collect()  # imageio leaves the pipes of its processes open, which would be another test's warning


def test_text_says_what_was_seen_done_and_paid(finished, tmp_path, capsys):
    run = finished(settings(), tmp_path / "run")
    main(["record", str(run), "--output", str(tmp_path / "episode.txt"), "--episodes", "3"])
    assert "3 episodes: returns from" in capsys.readouterr().out
    lines = (tmp_path / "episode.txt").read_text().splitlines()
    assert lines[0].startswith("step 0   return 0   seed ")
    assert ": sees [" in lines[0] and " -> " in lines[1]


def test_an_environment_without_pictures_and_one_on_device_are_text(finished, tmp_path):
    hidden = finished(settings(env_options={"hidden": True}), tmp_path / "hidden")
    assert record(hidden, episodes=1).path.suffix == ".txt"
    with pytest.raises(ValueError, match=r"Drifting-v0 renders no pictures: record to a \.txt"):
        record(hidden, tmp_path / "episode.gif", episodes=1)
    device = finished(settings(env="device:RepeatFirstEasy", num_envs=4, rollout=None), tmp_path / "device")
    done = record(device, episodes=2)
    assert done.path.read_text().count("\n") == 52
    assert done.total == pytest.approx(done.returns.max())


def test_what_cannot_be_written_is_refused_in_one_line(finished, tmp_path, monkeypatch):
    run = finished(settings(), tmp_path / "run")
    with pytest.raises(ValueError, match=r"episode\.avi: its name must end with one of \.gif, \.mp4, \.txt"):
        record(run, tmp_path / "episode.avi")
    (tmp_path / "there.gif").touch()
    with pytest.raises(ValueError, match=r"there\.gif exists: choose another --output"):
        record(run, tmp_path / "there.gif", episodes=1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"an MP4 needs imageio: pip install 'memoroids\[video\]'"):
        record(run, tmp_path / "episode.mp4")
