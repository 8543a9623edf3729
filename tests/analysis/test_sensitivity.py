"""How far back a value depends on observations: derivatives, profiles, POPGym's own memory lengths, files, command."""

import csv
import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids import linear_recurrence
from memoroids import tape as tapes
from memoroids.acting.evaluation import Evaluation, Evaluator
from memoroids.agents.networks import QNetwork
from memoroids.analysis.sensitivity import (
    Profile,
    SensitivityLog,
    draw_heatmap,
    draw_profiles,
    read_log,
    reward_memory_length,
    sensitivities,
    sensitivity,
    share_beyond,
    vml,
)
from memoroids.cli.main import main
from memoroids.envs import popgym_ids
from memoroids.memory import REGISTRY
from memoroids.runs.build import REPORT, environment_seeds
from memoroids.runs.run_directory import load
from memoroids.runs.run_sensitivity import Measured, report
from memoroids.runs.settings import TrainConfig
from memoroids.tape import Tape

PNG = b"\x89PNG\r\n\x1a\n"

popgym_ids()  # registers them


def episode(rng: np.random.Generator, length: int, actions: int = 3, size: int = 4) -> Tape:
    observation = rng.normal(size=(length + 1, size)).astype(np.float32)
    return tapes.episode(observation, rng.integers(actions, size=length, dtype=np.int32), np.zeros(length), True, False)


def by_steps(network: QNetwork, tape: Tape) -> np.ndarray:
    """The same by forward derivatives of acting, one step at a time, without padding."""
    length, action = tape.slots - 1, int(tape.action[tape.slots - 2])

    def step(state: Any, t_and_observation: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        t, observation = t_and_observation
        q, state = network.step(observation, t == 0, state)
        return state, q[action]

    def value(observation: jax.Array) -> jax.Array:
        return jax.lax.scan(step, network.initial_state(), (jnp.arange(length), observation))[1][-1]

    derivative = jax.jit(jax.jacfwd(value))(jnp.asarray(tape.observation[:length]))
    return np.linalg.norm(np.asarray(derivative, np.float64), axis=1)[::-1]


SIZES: dict[str, dict[str, int]] = {"lru": {"layers": 1, "state_size": 8}, "linear_transformer": {}, "mlp": {}}


@pytest.mark.parametrize("memory", SIZES)
def test_sensitivities_are_the_derivatives_of_acting_step_by_step(memory: str, rng: np.random.Generator):
    network = QNetwork(4, 3, REGISTRY[memory], key=jax.random.key(1), width=8, sizes=SIZES[memory])
    played = [episode(rng, length) for length in (6, 8)]
    found = sensitivities(network, played)
    np.testing.assert_allclose(found[0], by_steps(network, played[0]), rtol=2e-4, atol=1e-6 * found[0].max())
    profile = Profile.of(found)
    assert profile.episodes == 2
    if memory == "mlp":
        assert (share_beyond(profile, 0), vml(profile, 1.0), profile.share[0]) == (0.0, 0, 1.0)
    else:
        assert share_beyond(profile, 0) > 0.01 and vml(profile, 1.0) == 7


class Fading(eqx.Module):
    """Q(s_t, a) = Σ_i decay^(t-i) weight[a] · o_i; counts how often it is traced."""

    decay: jax.Array
    weight: jax.Array
    traced: list[int] = eqx.field(static=True)

    def __call__(self, observation: jax.Array, begin: jax.Array) -> tuple[jax.Array, None]:
        self.traced.append(0)
        flat = observation.reshape(len(observation), -1)
        decay = jnp.broadcast_to(self.decay, flat.shape[1:])
        return linear_recurrence(decay, flat, reset=begin) @ self.weight.T, None


WEIGHT = np.asarray([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0]], np.float32)
NORM = (5.0, 2.0, 2.0)


def fading(decay: float = 0.5) -> Fading:
    return Fading(jnp.asarray(decay), jnp.asarray(WEIGHT), [])


@pytest.mark.parametrize("action", range(3))
def test_a_linear_memory_has_the_sensitivity_of_its_weights_newest_first(action: int, rng: np.random.Generator):
    tape = tapes.episode(rng.normal(size=(6, 4)), [0, 1, 2, 0, action], np.zeros(5), False, True)
    np.testing.assert_allclose(sensitivity(fading(), tape), NORM[action] * 0.5 ** np.arange(5), rtol=1e-6)


def test_images_are_differentiated_by_grey_level(rng: np.random.Generator):
    images = rng.integers(256, size=(4, 2, 2), dtype=np.uint8)
    tape = tapes.episode(images, [1, 1, 0], np.zeros(3), True, False)
    np.testing.assert_allclose(sensitivity(fading(), tape), [5.0, 2.5, 1.25], rtol=1e-6)


def test_padding_company_and_the_final_observation_change_nothing(rng: np.random.Generator):
    network = QNetwork(4, 3, REGISTRY["gru"], key=jax.random.key(1), width=8)
    played = [episode(rng, length) for length in (5, 6, 8)]
    together = sensitivities(network, played)
    for values, tape in zip(together, played, strict=True):
        np.testing.assert_allclose(values, sensitivity(network, tape), rtol=1e-5)
        np.testing.assert_array_equal(sensitivity(network, tapes.pad(tape, 30)), sensitivity(network, tape))
        tape.observation[-1] = np.nan  # pyright: ignore[reportIndexIssue]
        np.testing.assert_array_equal(sensitivity(network, tape), sensitivity(network, tape))
        assert np.isfinite(sensitivity(network, tape)).all()


def test_many_long_episodes_are_taken_in_groups(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch):
    played = [episode(rng, length) for length in (3, 8, 5, 8, 2)]
    whole = sensitivities(fading(), played)
    monkeypatch.setattr("memoroids.analysis.sensitivity._SLOTS", 16)
    for values, expected in zip(sensitivities(fading(), played), whole, strict=True):
        np.testing.assert_array_equal(values, expected)


def test_new_parameters_and_episodes_of_like_lengths_reuse_what_was_compiled(rng: np.random.Generator):
    network = fading()
    for decay, lengths in ((0.5, (7, 5)), (0.25, (8, 3)), (0.75, (6, 6))):
        network = eqx.tree_at(lambda n: n.decay, network, jnp.asarray(decay))
        played = [episode(rng, length) for length in lengths]
        for values, tape in zip(sensitivities(network, played), played, strict=True):
            np.testing.assert_allclose(values[1] / values[0], decay, rtol=1e-6)
            assert len(values) == tape.slots - 1
    assert len(network.traced) == 1


def test_a_tape_that_is_not_one_whole_episode_is_refused(rng: np.random.Generator):
    one = episode(rng, 3)
    for tape in (tapes.concatenate([one, one]), jax.tree.map(lambda leaf: leaf[1:], one), tapes.empty(4, one)):
        with pytest.raises(ValueError, match="one whole episode"):
            sensitivity(fading(), tape)
    assert sensitivities(fading(), []) == []


def test_a_profile_weighs_episodes_equally_and_leaves_out_those_without_a_sensitivity():
    episodes = [[6.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.0, 0.2], [1.0, math.nan], [1.0, math.inf]]
    profile = Profile.of([np.asarray(values, np.float32) for values in episodes])
    np.testing.assert_allclose(profile.share, [0.5, 0.25, 0.0, 0.25, 0.0], rtol=1e-6)
    np.testing.assert_allclose(profile.cumulative, [0.5, 0.75, 0.75, 1.0, 1.0], rtol=1e-6)
    assert (profile.episodes, profile.left_out) == (2, 3)
    assert profile.first == pytest.approx((0.25 + 0.5) / 2)


def test_a_profile_of_values_that_depend_on_nothing_is_empty():
    profile = Profile.of([np.zeros(3, np.float32)])
    assert (profile.episodes, profile.left_out, profile.first, vml(profile)) == (0, 1, 0.0, 0)
    np.testing.assert_array_equal(profile.share, np.zeros(3))
    with pytest.raises(ValueError, match="at least one"):
        Profile.of([])


def profile_of(*shares: float) -> Profile:
    return Profile.of([np.asarray(shares, float)])


def test_beyond_an_age_is_all_that_is_older():
    profile = profile_of(0.4, 0.3, 0.2, 0.1)
    for age, expected in enumerate((0.6, 0.3, 0.1, 0.0, 0.0)):
        assert share_beyond(profile, age) == pytest.approx(expected)
    assert share_beyond(profile, -1) == pytest.approx(1.0)
    assert share_beyond(profile, math.inf) == 0.0


def test_the_card_that_repeat_previous_asks_for_is_within_its_memory_length_and_the_one_before_is_not():
    rml = reward_memory_length(gym.make("popgym-RepeatPreviousEasy-v0", disable_env_checker=True))
    assert rml == 3
    assert share_beyond(profile_of(0, 0, 0, 1, 0), rml) == 0.0
    assert share_beyond(profile_of(0, 0, 0, 0, 1), rml) == 1.0


def test_the_value_memory_length_is_the_first_age_whose_sum_reaches_the_share():
    profile = profile_of(0.5, 0.25, 0.0, 0.25, 0.0)
    assert [vml(profile, share) for share in (0.1, 0.5, 0.51, 0.75, 0.76, 0.95, 1.0)] == [0, 0, 1, 1, 3, 3, 3]
    assert vml(profile_of(*[0.1] * 10), 1.0) == 9
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="share"):
            vml(profile, share)


def play(id_: str, seed: int, **options: Any) -> tuple[gym.Env, list[Any], list[Any], list[float]]:
    """A POPGym episode of random actions: environment, observations, actions and rewards."""
    env = gym.make(id_, disable_env_checker=True, **options)
    env.action_space.seed(seed)
    observations, actions, rewards, over = [env.reset(seed=seed)[0]], [], [], False
    while not over:
        actions.append(env.action_space.sample())
        observation, reward, terminated, truncated, _ = env.step(actions[-1])
        observations.append(observation)
        rewards.append(float(reward))
        over = terminated or truncated
    return env, observations, actions, rewards


@pytest.mark.parametrize(
    ("task", "options", "rml"),
    [("Easy", {}, 3), ("Medium", {}, 31), ("Hard", {}, 63), ("Easy", {"k": 10}, 9), ("Easy", {"k": 1}, 0)],
    ids=str,
)
def test_the_memory_length_of_repeat_previous_is_where_the_rewarded_card_lies(task: str, options: Any, rml: int):
    env, observations, actions, rewards = play(f"popgym-RepeatPrevious{task}-v0", 3, **options)
    assert reward_memory_length(env) == rml
    for t in range(rml, len(actions)):
        assert (rewards[t] > 0) == (actions[t] == observations[t - rml])
    assert any(reward > 0 for reward in rewards) and not any(rewards[:rml])


@pytest.mark.parametrize("seed", range(12))
def test_the_last_rewards_of_other_card_tasks_look_back_to_the_first_observation(seed: int):
    env, observations, actions, rewards = play("popgym-RepeatFirstEasy-v0", seed)
    assert reward_memory_length(env) == math.inf
    assert (rewards[-1] > 0) == (actions[-1] == observations[0])

    env, observations, actions, rewards = play("popgym-AutoencodeEasy-v0", seed)
    assert reward_memory_length(env) == math.inf
    assert (rewards[-1] > 0) == (actions[-1] == observations[0][1])

    env, observations, actions, rewards = play("popgym-CountRecallEasy-v0", seed)
    assert reward_memory_length(env) == math.inf
    seen = [observation[0] for observation in observations[:-1]]
    assert (rewards[-1] > 0) == (actions[-1] == seen.count(observations[-2][1]))


def test_two_positions_and_the_last_action_are_the_state_of_a_cart_pole():
    env = gym.make("popgym-PositionOnlyCartPoleEasy-v0", disable_env_checker=True)
    assert reward_memory_length(env) == 1
    pole: Any = env.unwrapped
    before, _ = env.reset(seed=5)
    env.step(1)
    before, velocity = env.step(0)[0], pole.state[[1, 3]]
    now = env.step(1)[0]
    np.testing.assert_allclose((now - before) / pole.tau, velocity, atol=1e-4)
    position, angle = now
    reached = pole.state.copy()
    pole.state = np.asarray([before[0], velocity[0], before[1], velocity[1]])
    env.step(1)
    np.testing.assert_allclose(pole.state, reached, atol=1e-5)
    np.testing.assert_allclose([position, angle], reached[[0, 2]], atol=1e-6)


@pytest.mark.parametrize(
    "task",
    [
        "NoisyPositionOnlyCartPoleEasy",
        "VelocityOnlyCartpoleEasy",
        "MineSweeperMedium",
        "ConcentrationHard",
        "MultiarmedBanditEasy",
        "HigherLowerEasy",
    ],
)
def test_other_tasks_look_back_over_the_whole_episode(task: str):
    assert reward_memory_length(gym.make(f"popgym-{task}-v0", disable_env_checker=True)) == math.inf


def test_a_memory_length_is_not_made_up():
    class RepeatFirst(gym.Env):
        """Named like POPGym's."""

    for env in (gym.make("CartPole-v1"), RepeatFirst()):
        assert reward_memory_length(env) is None


def assert_picture(path: Path) -> None:
    assert path.read_bytes().startswith(PNG) and path.stat().st_size > 5_000


@pytest.mark.parametrize(("rml", "segment_length"), [(3, 10), (math.inf, None), (None, None)], ids=str)
def test_profiles_are_drawn_together(rml: float | None, segment_length: int | None, tmp_path: Path):
    profiles = {f"memory {i}": profile_of(*np.arange(1, 20 + i) ** -1.0) for i in range(4)}
    profiles["flat"] = Profile.of([np.zeros(9)])
    for count in (1, 5):
        path = tmp_path / f"{count}.png"
        shown = dict(list(profiles.items())[-count:])
        draw_profiles(path, shown, rml=rml, segment_length=segment_length, title="RepeatPreviousEasy")
        assert_picture(path)


LOG = {10: [0.5, 0.25, 0.25], 20: [0.75, 0.25], 30: [1 / 3, 1 / 3, 1 / 3]}


def assert_log(path: Path, *episodes: int) -> None:
    found = read_log(path)
    assert list(found) == list(episodes)
    for number, share in found.items():
        np.testing.assert_array_equal(share, LOG[number])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "sensitivity_training.csv"
    with closing(SensitivityLog(path)) as file:
        assert file.episode == 0
        assert_log(path)
        for i, (number, share) in enumerate(LOG.items()):
            file.write(number, Profile(np.asarray(share), 0.0, 1, 0))
            assert file.episode == number
            assert_log(path, *list(LOG)[: i + 1])
    return path


def test_profiles_while_training_are_rows_of_episode_age_and_share(log: Path):
    rows = [line.split(",") for line in log.read_text().splitlines()]
    assert rows[0] == ["episode", "age", "share"]
    assert rows[3:5] == [["10", "2", "0.25"], ["20", "0", "0.75"]]


@pytest.mark.parametrize("torn", ["", "4", "40,", "40,0,0.1\n40,1", "30,3,0.1", "x\r\n"])
def test_going_on_keeps_what_was_before_the_checkpoint(torn: str, log: Path):
    with log.open("a", newline="") as file:
        file.write(torn)
    with closing(SensitivityLog(log, keep=25)) as file:
        assert file.episode == 20
        assert_log(log, 10, 20)
        file.write(30, Profile(np.asarray(LOG[30]), 0.0, 1, 0))
    assert_log(log, 10, 20, 30)
    assert [path.name for path in log.parent.iterdir()] == [log.name]


@pytest.mark.parametrize("torn", ["4", "40,0", "40,0,x", "40,1,0.1", "40,0,0.1,5"])
def test_a_line_that_is_not_one_of_ours_is_named(torn: str, log: Path):
    with log.open("a", newline="") as file:
        file.write(torn + "\r\n")
    with pytest.raises(ValueError) as error:
        read_log(log)
    assert str(log) in str(error.value) and "line 10" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_or_foreign_log_is_refused_and_left_as_it_was(tmp_path: Path):
    path = tmp_path / "log.csv"
    for attempt in (lambda: read_log(path), lambda: SensitivityLog(path, keep=5)):
        with pytest.raises(ValueError, match=r"log\.csv is missing"):
            attempt()
    path.write_text("a,b\n1,2\n")
    for attempt in (lambda: read_log(path), lambda: SensitivityLog(path, keep=5)):
        with pytest.raises(ValueError, match="header"):
            attempt()
    assert path.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("rml", [1, math.inf, None], ids=str)
def test_profiles_over_training_are_a_heat_map(rml: float | None, log: Path, tmp_path: Path):
    draw_heatmap(tmp_path / "map.png", read_log(log), rml=rml, title="RepeatPreviousEasy, lru, seed 0")
    assert_picture(tmp_path / "map.png")


def test_a_log_without_a_profile_is_drawn_too(tmp_path: Path):
    draw_heatmap(tmp_path / "map.png", {})
    assert_picture(tmp_path / "map.png")


def test_the_report_names_segments_that_the_run_was_trained_on():
    profile = profile_of(*[1.0] * 20)
    tape = report(Measured(TrainConfig(), profile, None))
    assert tape["beyond_segment"] == pytest.approx({"10": 0.5, "20": 0.0, "50": 0.0, "100": 0.0})
    assert tape["rml"] is None and tape["beyond_rml"] is None
    config = dataclasses.replace(TrainConfig(), batching="segments", segment_length=4)
    segments = report(Measured(config, profile, math.inf))
    assert segments["beyond_segment"] == pytest.approx({"4": 0.8})
    assert (segments["rml"], segments["beyond_rml"]) == ("episode", 0.0)
    assert report(Measured(config, profile, 3))["beyond_rml"] == pytest.approx(0.8)
    assert segments["vml"] == {"0.5": 9, "0.95": 18, "0.99": 19}
    assert segments["first_share"] == pytest.approx(0.05)


def tiny(run: Path, *options: str) -> None:
    sizes = {"width": 8, "random-episodes": 3, "train-episodes": 4, "batch-size": 10, "buffer-size": 300, "num_envs": 1}
    sizes |= {"eval-episodes": 2, "final-episodes": 2, "updates-per-episode": 0}
    main(["train", *[f"--{name}={size}" for name, size in sizes.items()], "--run-dir", str(run), *options])


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command and returns what it printed, with the spaces folded, or the one line it failed with."""

    def run(*argv: str, code: int = 0) -> str:
        capsys.readouterr()
        if not code:
            main(argv)
        else:
            with pytest.raises(SystemExit) as stop:
                main(argv)
            assert stop.value.code == code
        out, err = capsys.readouterr()
        assert not (err if code == 0 else out) and err.count("\n") == (code != 0)
        return " ".join((out + err).split())

    return run


def test_a_run_is_measured_from_the_command_line(said: Callable[..., str], tmp_path: Path):
    run, out = tmp_path / "run", tmp_path / "else" / "where"
    tiny(run, "--env", "RepeatPreviousEasy", "--memory", "gru")
    text = said("sensitivity", str(run), "--episodes", "4", "--seed", "1", "--output", str(out))
    assert sorted(path.name for path in out.iterdir()) == ["sensitivity.csv", "sensitivity.json", "sensitivity.png"]
    assert not [path for path in run.iterdir() if path.name.startswith("sensitivity")]

    config, parts, params = load(run)
    evaluator = Evaluator(parts.eval_envs, parts.algorithm.act, parts.network.initial_state())
    seeds = environment_seeds(config.seed, REPORT, 1)
    played = evaluator.play(params, 4, seeds)
    shares = [by_steps(parts.algorithm.network(params), e.tape) for e in played]
    expected = np.zeros(max(e.length for e in played))
    for share in shares:
        expected[: len(share)] += share / share.sum() / 4
    rows = list(csv.DictReader((out / "sensitivity.csv").read_text().splitlines()))
    assert [int(row["age"]) for row in rows] == list(range(len(expected)))
    np.testing.assert_allclose([float(row["share"]) for row in rows], expected, rtol=1e-3)
    np.testing.assert_allclose([float(row["cumulative"]) for row in rows], np.cumsum(expected), rtol=1e-3)

    found = json.loads((out / "sensitivity.json").read_text())
    assert (found["episodes"], found["left_out"], found["rml"]) == (4, 0, 3)
    assert found["beyond_rml"] == pytest.approx(expected[4:].sum(), rel=1e-3)
    assert found["vml"]["0.95"] == int(np.argmax(np.cumsum(expected) >= 0.95))
    beyond = {length: expected[int(length) :].sum() for length in ("10", "20", "50", "100")}
    assert found["beyond_segment"] == pytest.approx(beyond, rel=1e-3, abs=1e-9)
    assert found["first_share"] == pytest.approx(np.mean([s[-1] / s.sum() for s in shares]), rel=1e-3)
    assert_picture(out / "sensitivity.png")
    assert "4 greedy episodes" in text and "(RML) 3 observations back" in text and str(out) in text
    assert re.search(rf"\(VML\) \d+ \(50%\), {found['vml']['0.95']} \(95%\), \d+ \(99%\) back", text)
    assert f"first observation {found['first_share']:.2%}" in text

    assert_evaluation(Evaluation.of(played), evaluator(params, 4, seeds))


def assert_evaluation(left: Evaluation, right: Evaluation) -> None:
    np.testing.assert_array_equal(left.returns, right.returns)
    np.testing.assert_array_equal(left.lengths, right.lengths)


@pytest.mark.parametrize(
    ("rml", "words"),
    [
        (None, ["not known for this environment"]),
        (math.inf, ["the whole episode", "beyond the RML 0.00%"]),
        (0, ["0 observations back", "beyond the RML 75.00%"]),
    ],
    ids=str,
)
def test_what_is_found_is_printed_beside_what_the_environment_asks(
    rml: float | None, words: list[str], said: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = TrainConfig(memory="ffm", batching="segments", segment_length=2)
    measured = Measured(config, Profile(np.full(4, 0.25), 0.125, 20, 3), rml)
    monkeypatch.setattr("memoroids.runs.run_sensitivity.measure", lambda *_: measured)
    (tmp_path / "config.json").write_text(config.to_json())
    text = said("sensitivity", str(tmp_path))
    expected = ["ffm", "left out: 3 episodes", "1 (50%), 3 (95%), 3 (99%) back", "first observation 12.50%", *words]
    assert all(word in text for word in [*expected, "segments of 2 50.00%"])
    assert ("beyond the RML" in text) == (rml is not None)
    rows = (tmp_path / "sensitivity.csv").read_text().splitlines()
    assert rows == ["age,share,cumulative", "0,0.25,0.25", "1,0.25,0.5", "2,0.25,0.75", "3,0.25,1.0"]
    assert json.loads((tmp_path / "sensitivity.json").read_text())["rml"] == ("episode" if rml == math.inf else rml)
    (tmp_path / "taken").touch()
    assert "taken" in said("sensitivity", str(tmp_path), "--output", str(tmp_path / "taken"), code=1)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nowhere"], ["nowhere holds no run"]),
        ([], ["sensitivity", "--help"]),
        (["run", "--episodes", "0"], ["episodes", "at least 1"]),
        (["run", "--seed=-1"], ["seed", "at least 0"]),
    ],
    ids=str,
)
def test_a_command_that_cannot_be_run_is_answered_in_one_line(
    argv: Sequence[str], words: Sequence[str], said: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    answer = said("sensitivity", *argv, code=2)
    assert answer.startswith("memoroids: ") and all(word in answer for word in words)
    assert list(tmp_path.iterdir()) == []


def test_the_command_is_listed(said: Callable[..., str]):
    assert " sensitivity Measure how far back" in said("--help")
