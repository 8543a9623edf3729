"""Images from an environment to the learner: bytes all the way, and a run that is made of them."""

import shlex
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import numpy as np
import pytest

from interruptions import interrupted
from memoroids import tape as tapes
from memoroids.acting.host_collection import Episode, collect
from memoroids.acting.policies import RandomPolicy
from memoroids.agents.dqn import DQNConfig
from memoroids.cli.main import main
from memoroids.envs import HostEnv
from memoroids.replay import tape_buffer
from memoroids.runs import checkpoint
from memoroids.runs.build import HostParts, build
from memoroids.runs.load import evaluate_run
from memoroids.runs.run_directory import CHECKPOINTS
from memoroids.runs.run_sensitivity import measure
from memoroids.runs.seeds import RANDOM, environment_seeds
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import from_json
from memoroids.runs.train import train
from memoroids.tape.segments import split

NAME = "test-pixels/Half-v0"
SHAPE = (36, 40)


class Half(gym.Env):
    """Noise in the bright half of an image; pays for naming the half, six times in an episode."""

    observation_space = gym.spaces.Box(0, 255, SHAPE, np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.t = 0
        return self._look(), {}

    def step(self, action: int):
        reward = float(action == self.half)
        self.t += 1
        return self._look(), reward, self.t == 6, False, {}

    def _look(self) -> np.ndarray:
        self.half = int(self.np_random.integers(2))
        image = np.zeros(SHAPE, np.uint8)
        image[:, 20 * self.half : 20 * self.half + 20] = self.np_random.integers(100, 256, (36, 20))
        return image


gym.register(NAME, entry_point=Half)


def episodes(count: int) -> list[Episode]:
    return list(collect([HostEnv(NAME) for _ in range(2)], RandomPolicy(2, 0), lambda n: 100 + n, 0, count))


def shown(seed: int) -> np.ndarray:
    """What the bare environment shows in an episode; actions change nothing of it."""
    env = Half()
    first, _ = env.reset(seed=seed)
    return np.stack([first, *(env.step(0)[0] for _ in range(6))])[..., None]


def test_collected_images_are_the_bytes_that_the_environment_shows():
    for episode in episodes(5):
        assert episode.tape.observation.dtype == np.uint8
        np.testing.assert_array_equal(episode.tape.observation, shown(100 + episode.number))


def test_replay_keeps_images_as_bytes_and_gives_them_back():
    stored = episodes(4)
    buffer = tape_buffer(40, 12, 6, min_length=6)
    state = buffer.init(stored[0].tape)
    for episode in stored:
        state = buffer.add(state, tapes.pad(episode.tape, 10))
    assert state.tape.observation.dtype == np.uint8 and state.tape.observation.shape == (40, *SHAPE, 1)
    tape, weight = buffer.sample(state, jax.random.key(0)).flat
    assert tape.observation.dtype == np.uint8 and int(weight.sum()) == 12
    known = {episode.tape.observation.tobytes() for episode in stored}
    begins = np.flatnonzero(np.asarray(tape.begin & tape.transition))
    assert len(begins) == 2
    for begin in begins:
        assert np.asarray(tape.observation[begin : begin + 7]).tobytes() in known


def test_segments_of_images_are_bytes():
    tape = episodes(1)[0].tape
    rows = split(tape, 4)
    assert rows.observation.dtype == np.uint8 and rows.observation.shape == (2, 5, *SHAPE, 1)
    np.testing.assert_array_equal(rows.observation[1, :3], tape.observation[4:])


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "env": NAME,
        "memory": "mlp",
        "width": 16,
        "random_episodes": 4,
        "train_episodes": 6,
        "updates_per_episode": 10,
        "batch_size": 18,
        "buffer_size": 200,
        "num_envs": 2,
        "eval_every": 3,
        "eval_episodes": 2,
        "final_episodes": 6,
        "agent": DQNConfig(learning_rate=1e-3, warmup=0, max_grad_norm=1.0, discount=0.0, polyak=0.5),
    }
    return TrainConfig.of(**settings | changes)


def test_a_run_on_images_learns_from_bytes_and_goes_on(tmp_path: Path):
    settings = config()

    assert interrupted(settings, tmp_path, after=3).final is None
    outcome = train(settings, tmp_path, resume=True)
    assert outcome.final is not None and outcome.final.mean > 5.0, "which half is bright can be seen at every step"
    example = tapes.episode(np.zeros((2, *SHAPE, 1), np.uint8), np.zeros(1, np.int32), np.zeros(1), True, False)
    like = tape_buffer(settings.replay.buffer_size, 1, 1).init(example)
    replay = checkpoint.restore(checkpoint.latest(tmp_path / CHECKPOINTS), "replay", like)
    assert replay.tape.observation.dtype == np.uint8
    first = environment_seeds(settings.seed, RANDOM)(0)
    np.testing.assert_array_equal(replay.tape.observation[:7], shown(first))
    assert outcome.rows[-1]["episode"] == settings.budget.train_episodes


class Small(Half):
    observation_space = gym.spaces.Box(0, 255, (20, 40), np.uint8)


gym.register("test-pixels/Small-v0", entry_point=Small)


def test_images_too_small_for_the_network_are_numbers_by_default():
    parts = build(config(env="test-pixels/Small-v0"))
    assert isinstance(parts, HostParts) and parts.envs.example.layout == (800,)
    parts.close()


def test_images_too_small_for_the_network_are_named_in_one_line():
    with pytest.raises(ValueError) as error:
        build(config(env="test-pixels/Small-v0", observation="image"))
    message = str(error.value)
    assert "(20, 40, 1)" in message and "36 x 36" in message and "\n" not in message


class Mission(gym.spaces.Space[str]):
    """As MiniGrid's: a space of strings that is not Gymnasium's `Text`."""

    def __init__(self):
        super().__init__(dtype=str)


class Grid(gym.Env):
    """Symbols, a direction and a mission, as MiniGrid shows them; with `camera` also a nested image."""

    action_space = gym.spaces.Discrete(3)

    def __init__(self, camera: bool = False):
        image, self.camera = gym.spaces.Box(0, 255, (7, 7, 3), np.uint8), camera
        parts = {"image": image, "direction": gym.spaces.Discrete(4), "mission": Mission()}
        if camera:
            parts["deeper"] = gym.spaces.Dict({"camera": gym.spaces.Box(0, 255, (3, *SHAPE), np.uint8)})
        self.observation_space = gym.spaces.Dict(parts)

    def _observe(self) -> dict[str, Any]:
        symbols = self.np_random.integers(0, 11, (7, 7, 3), dtype=np.uint8)
        parts = {"image": symbols, "direction": int(self.np_random.integers(4)), "mission": "go to the matching object"}
        if self.camera:
            parts["deeper"] = {"camera": self.np_random.integers(0, 256, (3, *SHAPE), dtype=np.uint8)}
        self.direction = parts["direction"]
        return parts

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.left = 5
        return self._observe(), {}

    def step(self, action: Any):
        self.left -= 1
        reward = float(action == self.direction)
        return self._observe(), reward, self.left == 0, False, {}


gym.register("test-pixels/Grid-v0", entry_point=Grid)
LEARNERS: dict[str, dict[str, Any]] = {
    "dqn": {"random_episodes": 4, "batch_size": 20, "buffer_size": 200, "updates_per_episode": 1},
    "ppo": {"epochs": 2, "minibatches": 2},
    "pqn": {"epochs": 2, "minibatches": 2},
}


QUICK = (("dqn", True),)
GRIDS = [
    pytest.param(algorithm, camera, marks=() if (algorithm, camera) in QUICK else pytest.mark.slow)
    for algorithm in LEARNERS
    for camera in (False, True)
]


@pytest.mark.parametrize(("algorithm", "camera"), GRIDS)
@pytest.mark.slow
def test_dicts_train_resume_evaluate_and_are_measured(
    algorithm: str, camera: bool, tmp_path: Path, capsys: pytest.CaptureFixture
):
    settings = TrainConfig.of(
        env="test-pixels/Grid-v0",
        env_options={"camera": camera},
        algorithm=algorithm,
        memory="gru",
        width=8,
        train_episodes=8,
        num_envs=2,
        eval_every=4,
        eval_episodes=2,
        final_episodes=2,
        **LEARNERS[algorithm],
    )

    assert interrupted(settings, tmp_path).final is None
    assert train(settings, tmp_path, resume=True).final is not None
    notices = [line for line in capsys.readouterr().err.splitlines() if "text" in line]
    assert notices == ["memoroids: test-pixels/Grid-v0: observation['mission'] is text, which the agent does not see"]
    assert len(evaluate_run(tmp_path, 3, 0).greedy.returns) == 3
    if settings.agent_type().traits.action_values:
        assert measure(tmp_path, 2, 0).profile.episodes == 2


def test_atari_plays_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    main(
        shlex.split(
            "train --env ALE/Asteroids-v5 --preset atari --memory mlp --width 8 --random-episodes 2 "
            "--train-episodes 2 --updates-per-episode 0 --batch-size 20 --buffer-size 200 --num-envs 1 "
            "--env-options max_episode_steps 8 --eval-episodes 1 --final-episodes 1 "
            f"--run-dir {tmp_path / 'run'}"
        )
    )
    captured = capsys.readouterr()
    assert "final return, greedy, 1 fresh seeds" in captured.out and "dropped" not in captured.err
    written = from_json((tmp_path / "run" / "config.json").read_text())
    assert written.env.options == {"max_episode_steps": 8} and written.agent.polyak == 0.999
