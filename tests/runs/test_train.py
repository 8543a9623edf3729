"""Training runs, tiny ones: what they write, how they end, and how they go on."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import gymnasium as gym
import jax
import numpy as np
import pytest

from compilations import compiled, compiled_between
from memoroids import tape as tapes
from memoroids.agents.dqn import DQNConfig
from memoroids.algebra.monoid import Max
from memoroids.envs import EnvironmentFault
from memoroids.memory.memoroid import Memoroid
from memoroids.replay import SegmentBufferState, TapeBufferState, tape_buffer
from memoroids.runs import checkpoint, metrics
from memoroids.runs.build import build_host
from memoroids.runs.build_replay import host_replay
from memoroids.runs.checkpoint import CheckpointError
from memoroids.runs.load import evaluate_run
from memoroids.runs.progress import Outcome, Progress, TrainingError, episodes_to
from memoroids.runs.run_directory import CHECKPOINTS, load_config, locked
from memoroids.runs.seeds import EVALUATE, FINAL, RANDOM, TRAIN, environment_seeds
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import to_json
from memoroids.runs.train import train
from memoroids.tape import slots_needed

EVEN, UNEVEN = "test-train/Even-v0", "test-train/Uneven-v0"
TIMED = metrics.TIMES


class Toy(gym.Env):
    """Five steps, or for `uneven` two and sometimes eleven by the seed; pays for the sign of the noise."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    at_reset: Callable[[int], None] | None = None
    """Called with every seed: where a test lets something happen in mid-run."""

    def __init__(self, uneven: bool = False):
        self.uneven = uneven

    @staticmethod
    def uneven_length(seed: int) -> int:
        return 11 if seed % 5 == 0 else 2

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        assert seed is not None
        if Toy.at_reset is not None:
            Toy.at_reset(seed)
        self.t, self.length = 0, Toy.uneven_length(seed) if self.uneven else 5
        return self._look(), {}

    def step(self, action: int):
        reward = float(action == (self.noise[0] > 0))
        self.t += 1
        return self._look(), reward, self.t == self.length, False, {}

    def _look(self) -> np.ndarray:
        self.noise = self.np_random.normal(size=2).astype(np.float32)
        return self.noise


gym.register(EVEN, entry_point=Toy)
gym.register(UNEVEN, entry_point=Toy, kwargs={"uneven": True})


@pytest.fixture
def at_reset(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets something happen when the training episode of a number is reset; None: nothing any more."""

    def install(number: int | None, happen: Callable[[], None], run_seed: int = 0) -> None:
        when = None if number is None else environment_seeds(run_seed, TRAIN)(number)

        def hook(seed: int) -> None:
            if seed == when:
                happen()

        monkeypatch.setattr(Toy, "at_reset", staticmethod(hook))

    return install


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "env": EVEN,
        "memory": "mlp",
        "width": 16,
        "random_episodes": 4,
        "checkpoint_every": 500,
        "updates_per_episode": 1,
        "epsilon_start": 0.2,
        "epsilon_end": 0.01,
        "epsilon_decay": 1.0,
        "train_episodes": 6,
        "batch_size": 20,
        "buffer_size": 200,
        "num_envs": 2,
        "eval_every": 2,
        "eval_episodes": 2,
        "final_episodes": 3,
        "agent": DQNConfig(learning_rate=1e-2, warmup=0),
    }
    return TrainConfig.of(**settings | changes)


def learner_of(settings: TrainConfig, run_dir: Path) -> list[np.ndarray]:
    parts = build_host(settings)
    path = checkpoint.latest(run_dir / CHECKPOINTS)
    learner = checkpoint.restore(path, "learner", parts.agent.init(parts.network))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(learner)]


def replay_of(settings: TrainConfig, run_dir: Path) -> TapeBufferState:
    size = build_host(settings).envs.example.observation_size
    example = tapes.episode(np.zeros((2, size), np.float32), np.zeros(1, np.int32), np.zeros(1), True, False)
    like = tape_buffer(settings.replay.buffer_size, 1, 1).init(example)
    return checkpoint.restore(checkpoint.latest(run_dir / CHECKPOINTS), "replay", like)


def segments_of(settings: TrainConfig, run_dir: Path) -> SegmentBufferState:
    parts = build_host(settings)
    observation = np.zeros((2, parts.envs.example.observation_size), np.float32)
    example = tapes.episode(observation, np.zeros(1, np.int32), np.zeros(1), True, False)
    return checkpoint.restore(
        checkpoint.latest(run_dir / CHECKPOINTS), "replay", host_replay(settings, parts).like(example)
    )


def contents(run_dir: Path) -> dict[str, bytes]:
    return {str(file.relative_to(run_dir)): file.read_bytes() for file in run_dir.rglob("*") if file.is_file()}


def untimed(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


@pytest.fixture(scope="module")
def popgym(
    tmp_path_factory: pytest.TempPathFactory, compiled_once: None
) -> tuple[TrainConfig, Outcome, list[Progress]]:
    """A finished run of a real task with a real memory, two updates an episode."""
    settings = config(
        env="popgym-RepeatPreviousEasy-v0",
        memory="ffm",
        memory_sizes={"trace_size": 4, "context_size": 2},
        train_episodes=5,
        updates_per_episode=2,
        batch_size=100,
        buffer_size=1_000,
        checkpoint_every=2,
        tensorboard=True,
    )
    run_dir = tmp_path_factory.mktemp("runs") / "popgym"
    moments: list[Progress] = []
    return settings, train(settings.replace(run_dir=run_dir), run_dir, watch=moments.append), moments


def test_a_run_directory_holds_the_settings_metrics_curve_summary_and_checkpoints(popgym: Any):
    settings, outcome, _ = popgym
    run = outcome.run_dir
    assert {path.name for path in run.iterdir()} == {
        "config.json",
        "metrics.csv",
        "curve.png",
        "baseline.json",
        "summary.json",
        "checkpoints",
        "tensorboard",
        "trackers.json",
        "lock",
    }
    assert load_config(run) == settings.replace(run_dir=run, target_return=0.95)
    assert (run / "curve.png").stat().st_size > 5_000
    # Random and training episodes together number the checkpoints; the newest two are kept.
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["000000008", "000000009"]
    assert len(list((run / "tensorboard").iterdir())) == 1


def test_metrics_count_what_was_done(popgym: Any):
    settings, outcome, _ = popgym
    rows = metrics.read(outcome.run_dir / "metrics.csv")
    assert untimed(rows) == untimed(outcome.rows)
    episodes = [2, 4, 5]
    assert [row["episode"] for row in rows] == episodes
    # Every episode of this task is 51 steps long, so two of them make each batch of 100.
    assert [row["env_steps"] for row in rows] == [(settings.budget.random_episodes + n) * 51 for n in episodes]
    assert [row["updates"] for row in rows] == [2 * n for n in episodes]
    assert [row["transitions"] for row in rows] == [2 * n * 102 for n in episodes]
    # A final slot for each, and room for one more episode that reaches the batch size late.
    assert [row["slots"] for row in rows] == [2 * n * slots_needed(100, 51, 51) for n in episodes]
    np.testing.assert_allclose(
        [row["epsilon"] for row in rows], [0.2 - 0.19 * (n - 1) / 4 for n in episodes], rtol=1e-5
    )
    for row in rows:
        assert {name for name, value in row.items() if not np.isfinite(value)} == {*metrics.LOSSES, "eval_sampled"}
        assert row["eval_greedy"] == row["eval_return"]
        assert row["skipped"] == 0 and row["loss"] > 0 and row["grad_norm"] > 0
        assert -1 <= row["train_return"] <= 1 and -1 <= row["eval_return"] <= 1
    assert rows[0]["seconds"] < rows[1]["seconds"] < rows[2]["seconds"]


def test_the_replay_of_a_run_holds_all_its_episodes(popgym: Any):
    settings, outcome, _ = popgym
    replay = replay_of(settings, outcome.run_dir)
    assert (int(replay.added), int(replay.live), int(replay.refused)) == (9, 9, 0)
    assert int(replay.tape.transition.sum()) == 9 * 51


def test_the_summary_reports_last_mean_and_maximum_beside_the_final_return(popgym: Any):
    _, outcome, _ = popgym
    summary = json.loads((outcome.run_dir / "summary.json").read_text())
    returns = [row["eval_return"] for row in outcome.rows]
    assert summary["last_eval_return"] == returns[-1]
    assert summary["mean_eval_return"] == pytest.approx(np.mean(returns))
    assert summary["max_eval_return"] == max(returns)
    assert (
        summary["final_return"] == outcome.final.mean and summary["final_episodes"] == len(outcome.final.returns) == 3
    )
    low, high = summary["final_interval"]
    assert low <= summary["final_return"] <= high
    assert (summary["target_return"], summary["episodes_to_target"]) == (0.95, None)
    assert (summary["random"], summary["episode"], summary["updates"]) == (4, 5, 10)


def test_progress_is_told_with_every_row(popgym: Any):
    _, outcome, told = popgym
    moments = [moment for moment in told if moment.row is not None]
    assert [moment.counters.episode for moment in moments] == [2, 4, 5]
    assert [moment.row for moment in moments] == outcome.rows
    assert moments[-1].seconds_left == 0
    assert moments[0].seconds_left > 0


def test_a_run_is_evaluated_on_fresh_seeds_and_left_as_it_is(popgym: Any):
    _, outcome, _ = popgym
    before = contents(outcome.run_dir)
    evaluation, sampled = evaluate_run(outcome.run_dir, 5, seed=0)
    assert sampled is None
    assert len(evaluation.returns) == 5
    np.testing.assert_array_equal(evaluation.lengths, np.full(5, 51))
    np.testing.assert_array_equal(evaluate_run(outcome.run_dir, 5, seed=0).greedy.returns, evaluation.returns)
    assert not np.array_equal(evaluate_run(outcome.run_dir, 5, seed=1).greedy.returns, evaluation.returns)
    assert contents(outcome.run_dir) == before


def test_a_finished_run_resumed_is_finished_still(popgym: Any, tmp_path: Path):
    settings, outcome, _ = popgym
    shutil.copytree(outcome.run_dir, tmp_path / "run")
    again = train(settings, tmp_path / "run", resume=True)
    assert untimed(again.rows) == untimed(outcome.rows)
    np.testing.assert_array_equal(again.final.returns, outcome.final.returns)
    for a, b in zip(learner_of(settings, tmp_path / "run"), learner_of(settings, outcome.run_dir), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_seed_gives_one_run_bit_for_bit_and_another_another(tmp_path: Path):
    outcomes = [train(config(seed=seed), tmp_path / name) for seed, name in ((0, "a"), (0, "b"), (1, "c"))]
    first, same, other = outcomes
    assert untimed(same.rows) == untimed(first.rows)
    np.testing.assert_array_equal(same.final.returns, first.final.returns)
    assert untimed(other.rows) != untimed(first.rows)
    states = [
        [
            *learner_of(config(), tmp_path / name),
            *map(np.asarray, jax.tree.leaves(replay_of(config(), tmp_path / name))),
        ]
        for name in ("a", "b", "c")
    ]
    for a, b in zip(states[0], states[1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, c) for a, c in zip(states[0], states[2], strict=True))


def test_a_directory_that_holds_another_run_is_refused_and_left_as_it_was(popgym: Any):
    _, outcome, _ = popgym
    before = contents(outcome.run_dir)
    with pytest.raises(ValueError) as error:
        train(config(seed=5), outcome.run_dir)
    message = str(error.value)
    assert str(outcome.run_dir) in message and "resume" in message and "\n" not in message
    assert contents(outcome.run_dir) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"env": "RepeatFristEasy"},
        {"env": "popgym-PositionOnlyPendulumEasy-v0"},
        {"memory": "lruu"},
        {"memory": "gru", "memory_sizes": {"layers": 3}},
        {"memory": "lru", "memory_sizes": {"state_size": 2.5}},
        {"memory": "ffm", "memory_sizes": {"trace_size": 0}},
        {"memory": "builtins:dict"},
        {"wandb": True},
    ],
    ids=str,
)
def test_a_run_that_cannot_begin_says_so_in_one_line_and_takes_no_directory(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError) as error:
        train(config(**changes), tmp_path / "run")
    # A file left open would otherwise fail whichever test the collector runs in.
    gc.collect()
    assert str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def assert_complete(settings: TrainConfig, run_dir: Path, outcome: Outcome) -> None:
    assert outcome.final is not None
    rows = metrics.read(run_dir / "metrics.csv")
    assert [row["episode"] for row in rows] == [2, 4, 6]
    assert untimed(rows) == untimed(outcome.rows)
    total = settings.budget.random_episodes + 6
    assert rows[-1]["env_steps"] == 5 * total
    assert rows[-1]["updates"] == 6
    replay = replay_of(settings, run_dir)
    assert (int(replay.added), int(replay.refused)) == (total, 0)
    assert (run_dir / "summary.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_checkpoint_and_goes_on_to_its_end(number: int, tmp_path: Path):
    def watch(progress: Progress) -> None:
        if progress.counters.episode == 4:
            interrupt(number)

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    stopped = train(config(), tmp_path / "run", watch=watch)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert stopped.final is None and [row["episode"] for row in stopped.rows] == [2, 4]
    counters = checkpoint.counters(checkpoint.latest(tmp_path / "run" / "checkpoints"))
    assert (counters["episode"], counters["random"], counters["updates"]) == (4, 4, 4)
    assert (tmp_path / "run" / "curve.png").exists() and not (tmp_path / "run" / "summary.json").exists()

    outcome = train(load_config(tmp_path / "run"), tmp_path / "run", resume=True)
    assert_complete(config(), tmp_path / "run", outcome)
    assert untimed(outcome.rows[:2]) == untimed(stopped.rows)


def test_a_run_interrupted_while_it_collects_at_random_goes_on_to_its_end(tmp_path: Path):
    def watch(progress: Progress) -> None:
        if progress.counters.random == 50 and progress.counters.episode == 0:
            interrupt()

    settings = config(random_episodes=60, buffer_size=1_000)
    stopped = train(settings, tmp_path / "run", watch=watch)
    assert stopped.final is None and stopped.rows == []
    assert checkpoint.counters(checkpoint.latest(tmp_path / "run" / "checkpoints"))["random"] == 50
    outcome = train(settings, tmp_path / "run", resume=True)
    assert_complete(settings, tmp_path / "run", outcome)


@pytest.mark.parametrize(("stream", "at"), [(EVALUATE, 4), (FINAL, None)])
@pytest.mark.one_in(2)
def test_an_evaluation_is_not_waited_for_and_repeated_when_the_run_goes_on(
    stream: int, at: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = train(config(), tmp_path / "whole")
    seed_of = environment_seeds(0, stream, *([] if at is None else [at]))
    played = []

    def happen(seed: int) -> None:
        if seed in (seed_of(0), seed_of(1), seed_of(2)):
            played.append(seed)
            if len(played) == 1:
                interrupt()

    monkeypatch.setattr(Toy, "at_reset", staticmethod(happen))
    stopped = train(config(), tmp_path / "run")
    assert stopped.final is None and [row["episode"] for row in stopped.rows] == ([2] if at else [2, 4, 6])
    outcome = train(config(), tmp_path / "run", resume=True)
    assert untimed(outcome.rows) == untimed(whole.rows)
    assert np.array_equal(outcome.final.returns, whole.final.returns)
    for left, right in zip(
        learner_of(config(), tmp_path / "run"), learner_of(config(), tmp_path / "whole"), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def test_an_error_of_the_callers_own_watch_leaves_a_checkpoint_and_is_raised_as_it_was(tmp_path: Path):
    class Own(Exception):
        pass

    def watch(progress: Progress) -> None:
        if progress.counters.episode == 4:
            raise Own("mine")

    with pytest.raises(Own, match="mine"):
        train(config(), tmp_path / "run", watch=watch)
    assert checkpoint.counters(checkpoint.latest(tmp_path / "run" / "checkpoints"))["episode"] == 4
    outcome = train(config(), tmp_path / "run", resume=True)
    assert_complete(config(), tmp_path / "run", outcome)


class Forgetful(Max):
    """The maximum of what came before it, times a half: not associative."""

    def combine(self, left: Any, right: Any) -> Any:
        return jax.numpy.maximum(left / 2, right)


class NotAssociative(Memoroid):
    """A memory over a monoid that is none."""

    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)

    def __init__(self, input_size: int, output_size: int, *, key: jax.Array):
        self.input_size, self.output_size = input_size, output_size

    @property
    def monoid(self) -> Forgetful:
        return Forgetful(self.output_size)

    def lift(self, x: jax.Array, begin: jax.Array) -> jax.Array:
        return x

    def readout(self, h: jax.Array, x: jax.Array, begin: jax.Array) -> jax.Array:
        return x + jax.numpy.tanh(h)


def test_a_memory_of_the_users_own_is_checked_before_it_is_trained(tmp_path: Path):
    settings = config(memory=NotAssociative)
    with pytest.raises(ValueError, match=r"NotAssociative's monoid: Forgetful breaks .*\(--no-check-memory") as error:
        train(settings, tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()
    outcome = train(settings.replace(check_memory=False), tmp_path / "run")
    assert outcome.final is not None


def test_an_environment_passed_as_an_object_trains_but_not_in_other_processes(tmp_path: Path):
    settings = config(env=lambda: Toy())
    with pytest.raises(
        ValueError, match=r"processes 1 needs an environment that other processes can import, but given:"
    ):
        train(settings.replace(processes=1), tmp_path / "run")
    outcome = train(settings, tmp_path / "run")
    named = train(config(), tmp_path / "named")
    assert untimed(outcome.rows) == untimed(named.rows)
    assert evaluate_run(tmp_path / "run", 2, 0).greedy.mean == evaluate_run(tmp_path / "named", 2, 0).greedy.mean


def test_a_run_interrupted_between_two_rows_counts_all_its_updates_when_it_goes_on(
    tmp_path: Path, at_reset: Callable[..., None]
):
    settings = config(num_envs=1)
    at_reset(2, interrupt)
    assert train(settings, tmp_path / "run").final is None
    assert checkpoint.counters(checkpoint.latest(tmp_path / "run" / "checkpoints"))["episode"] == 3
    at_reset(None, interrupt)
    outcome = train(settings, tmp_path / "run", resume=True)
    assert_complete(settings, tmp_path / "run", outcome)
    # Four episodes of five steps make a batch of twenty, every time.
    assert outcome.rows[-1]["transitions"] == 6 * 20


def test_what_was_written_before_an_environment_failed_is_kept_and_gone_on_with(
    tmp_path: Path, at_reset: Callable[..., None]
):
    def fail() -> None:
        raise RuntimeError("the simulator is gone")

    settings = config(num_envs=1, checkpoint_every=3, max_faults=0)
    at_reset(5, fail)
    with pytest.raises(EnvironmentFault, match=r"episode 5: .*the simulator is gone"):
        train(settings, tmp_path / "run")
    assert [row["episode"] for row in metrics.read(tmp_path / "run" / "metrics.csv")] == [2, 4]
    assert (tmp_path / "run" / "curve.png").exists()
    at_reset(None, fail)
    assert_complete(settings, tmp_path / "run", train(settings, tmp_path / "run", resume=True))


def test_there_is_nothing_to_go_on_with_where_no_checkpoint_was_written(tmp_path: Path):
    for resumable in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CheckpointError) as error:
            train(config(), resumable, resume=True)
        assert str(resumable) in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["flipped bit", "foreign counters", "metrics gone"])
def test_a_run_that_was_damaged_is_refused_in_one_line(damage: str, tmp_path: Path):
    run = tmp_path / "run"
    train(config(updates_per_episode=0, train_episodes=2), run)
    manifest = checkpoint.latest(run / "checkpoints") / "manifest.json"
    if damage == "flipped bit":
        file = next(file for file in manifest.parent.rglob("*") if file.parent.name == "d")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "foreign counters":
        values = json.loads(manifest.read_text())
        values["counters"]["episofe"] = values["counters"].pop("episode")
        manifest.write_text(json.dumps(values))
    else:
        (run / "metrics.csv").unlink()
    with pytest.raises((CheckpointError, ValueError)) as error:
        train(config(updates_per_episode=0, train_episodes=2), run, resume=True)
    assert str(run) in str(error.value) and "\n" not in str(error.value)


def test_settings_that_cannot_be_read_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no run") as error:
        load_config(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(error.value)
    path = tmp_path / "config.json"
    for content in (
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"env": 3}',
        to_json(config()).replace('"seed": 0', '"seed": -1').encode(),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError) as error:
            load_config(tmp_path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def uneven_lengths(seed: int) -> list[int]:
    streams = [environment_seeds(seed, RANDOM)] * 4 + [environment_seeds(seed, TRAIN)] * 10
    return [Toy.uneven_length(seeds(n)) for seeds, n in zip(streams, [*range(4), *range(10)], strict=True)]


@pytest.mark.parametrize("first", ["long", "short"])
@pytest.mark.one_in(2)
def test_longer_and_shorter_episodes_than_any_before_are_all_kept(first: str, tmp_path: Path):
    # A new shortest one while collecting at random, or a new longest one while already training.
    early = [11, 2] if first == "long" else [2, 2, 2, 2, 2, 2]
    seed = next(s for s in range(1_000) if uneven_lengths(s)[: len(early)] == early and 11 in uneven_lengths(s))
    lengths = uneven_lengths(seed)
    settings = config(env=UNEVEN, seed=seed, train_episodes=10)
    outcome = train(settings, tmp_path / "run")
    replay = replay_of(settings, tmp_path / "run")
    assert (int(replay.added), int(replay.refused)) == (14, 0)
    assert sorted(np.asarray(replay.length)[:14].tolist()) == sorted(lengths)
    assert outcome.rows[-1]["env_steps"] == sum(lengths)
    # Batches are filled whole, the last episode kept whole.
    assert 10 * 20 <= outcome.rows[-1]["transitions"] <= 10 * 30


@pytest.mark.parametrize(
    ("state", "count"), [("zero", "slots"), ("burn-in", "slots"), ("stored", "transitions")], ids=str
)
@pytest.mark.one_in(3)
def test_a_run_on_segments_stores_them_all_counts_their_slots_and_goes_on_bit_for_bit(
    state: str, count: str, tmp_path: Path, at_reset: Callable[..., None]
):
    seed = next(s for s in range(1_000) if {2, 11} <= set(uneven_lengths(s)[:4]) and 11 in uneven_lengths(s)[4:7])
    lengths = uneven_lengths(seed)[:10]
    settings = config(
        env=UNEVEN,
        seed=seed,
        memory="gru",
        width=8,
        num_envs=1,
        batching="segments",
        segment_length=3,
        segment_state=state,
        segment_count=count,
    )
    outcome = train(settings, tmp_path / "run")
    ring = segments_of(settings, tmp_path / "run")
    fragments = sum(-(-length // 3) for length in lengths)
    assert int(ring.added) == int(ring.live) == fragments
    assert int(ring.tape.transition.sum()) == outcome.rows[-1]["env_steps"] == sum(lengths)
    assert all(0 < row["transitions"] < row["slots"] for row in outcome.rows)
    assert all(np.isfinite(row["loss"]) and row["skipped"] == 0 for row in outcome.rows)
    if count == "slots":
        # ⌊20 / 3⌋ segments, each with a slot for its last observation.
        assert [row["slots"] for row in outcome.rows] == [n * 6 * 4 for n in (2, 4, 6)]
    else:
        segments, _ = checkpoint.counters(checkpoint.latest(tmp_path / "run" / CHECKPOINTS))["bounds"]
        wanted = 20 * fragments / sum(lengths)
        assert segments == round(wanted) or abs(np.log(segments / wanted)) < np.log(1.05)
    if state != "stored":
        assert ring.states is None
        return
    begins = np.asarray(ring.tape.begin[:fragments, 0])
    carried = np.asarray(ring.states[:fragments]).any(axis=1)
    # What enters an episode's first segment is the initial state, and any other one is not.
    np.testing.assert_array_equal(carried, ~begins)

    # The same run in two halves: stored states, the number of segments in a batch and all that follows agree.
    at_reset(2, interrupt, seed)
    halves = tmp_path / "halves"
    assert train(settings, halves).final is None
    assert checkpoint.counters(checkpoint.latest(halves / CHECKPOINTS))["episode"] == 3
    at_reset(None, interrupt)
    again = train(settings, halves, resume=True)
    assert untimed(again.rows) == untimed(outcome.rows)
    np.testing.assert_array_equal(again.final.returns, outcome.final.returns)
    for a, b in zip(
        [*learner_of(settings, halves), *jax.tree.leaves(segments_of(settings, halves))],
        [*learner_of(settings, tmp_path / "run"), *jax.tree.leaves(ring)],
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_an_episode_longer_than_the_replay_ends_the_run_with_both_sizes_named(tmp_path: Path):
    with pytest.raises((ValueError, TrainingError)) as error:
        train(config(env=UNEVEN, random_episodes=12, buffer_size=8), tmp_path / "run")
    message = str(error.value)
    assert "\n" not in message
    assert "11 transitions" in message and "12 slots" in message and " 8" in message
    assert "buffer" in message


def test_a_full_replay_forgets_the_oldest(tmp_path: Path):
    settings = config(buffer_size=20)
    train(settings, tmp_path / "run")
    replay = replay_of(settings, tmp_path / "run")
    assert (int(replay.added), int(replay.live), int(replay.refused)) == (10, 3, 0)


def test_a_run_whose_updates_all_fail_ends_with_a_checkpoint_of_finite_parameters(tmp_path: Path):
    settings = config(
        agent=DQNConfig(learning_rate=1e38, warmup=0), random_episodes=8, train_episodes=20, max_skipped=3
    )
    with pytest.raises(TrainingError) as error:
        train(settings, tmp_path / "run")
    message = str(error.value)
    assert message.startswith("4 updates in a row were skipped") and "non-finite: loss, ∂encoder" in message
    assert (
        "up to training episode " in message
        and str(tmp_path / "run" / "checkpoints") in message
        and "\n" not in message
    )
    assert all(np.isfinite(leaf).all() for leaf in learner_of(settings, tmp_path / "run"))
    rows = metrics.read(tmp_path / "run" / "metrics.csv")
    assert rows[-1]["skipped"] > 0 and rows[-1]["episode"] < 10
    assert "episode 2: skipped 1 update up to training episode 2" in (tmp_path / "run" / "warnings.txt").read_text()


def test_a_run_without_updates_or_random_episodes_only_collects(tmp_path: Path):
    settings = config(random_episodes=0, updates_per_episode=0)
    outcome = train(settings, tmp_path / "run")
    assert [row["updates"] for row in outcome.rows] == [0, 0, 0]
    assert all(np.isnan(row["loss"]) for row in outcome.rows)
    initial = build_host(settings)
    for a, b in zip(
        learner_of(settings, tmp_path / "run"), jax.tree.leaves(initial.agent.init(initial.network)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def rows_of(*returns: float) -> list[dict[str, float]]:
    return [{"episode": 10.0 * (i + 1), "eval_return": value} for i, value in enumerate(returns)]


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ((1, 1, 1, 1, 1, 1), 10),
        ((0, 0.95, 1, 1, 1, 1, 0.95), 20),
        ((0, 1, 1, 1, 1, 1, 0.94, 1, 1, 1, 1, 1, 1), 80),
        ((1, 1, 1, 1, 1), None),
        ((0, 1, 1, 1, 1, 1), None),
        ((1, 1, 1, 1, 1, 0.9), None),
        ((1, 1, 1, 1, 1, 1, 0), 10),
        ((), None),
    ],
)
def test_a_level_is_reached_where_it_is_met_and_stays_met_for_the_next_five(
    returns: tuple[float, ...], expected: int | None
):
    assert episodes_to(rows_of(*returns), 0.95) == expected


def test_what_has_no_target_never_reaches_it():
    assert episodes_to(rows_of(1, 1, 1, 1, 1, 1), None) is None


def test_a_level_may_be_asked_to_stay_for_longer_or_shorter():
    assert episodes_to(rows_of(0, 1, 0, 1, 1), 0.5, stay=1) == 40
    assert episodes_to(rows_of(0, 1, 0, 1, 1), 0.5, stay=0) == 20
    assert episodes_to(rows_of(0, 1, 0, 1, 1), 0.5, stay=2) is None


@pytest.mark.parametrize("changes", [{}, {"batching": "segments"}], ids=["tape", "segments"])
def test_nothing_is_compiled_after_the_first_epochs(tmp_path, changes):
    moments: list[tuple[int, int]] = []
    settings = config(train_episodes=24, checkpoint_every=6, **changes)
    train(settings, tmp_path / "run", watch=lambda p: moments.append((p.counters.episode, compiled())))
    assert moments[0][1] < moments[-1][1], "nothing was counted"
    # By the seventh episode there has been a checkpoint too.
    assert compiled_between(moments, 8, 24) == 0


def killed(settings: TrainConfig, run_dir: Path, at: int, *, resume: bool = False) -> None:
    """Trains in a process of its own and kills it when training episode `at` has begun, on the spot."""
    code = (
        "import os, signal, sys, test_train as t\n"
        "from pathlib import Path\n"
        "from memoroids.runs.seeds import TRAIN, environment_seeds\n"
        "from memoroids.runs.settings_file import from_json\n"
        "seed = environment_seeds(0, TRAIN)(int(sys.argv[2]))\n"
        "t.Toy.at_reset = lambda seen: seen == seed and os.kill(os.getpid(), signal.SIGKILL)\n"
        "t.train(from_json(sys.stdin.read()), Path(sys.argv[1]), resume=bool(sys.argv[3:]))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(run_dir), str(at), *(["resume"] if resume else [])],
        input=to_json(settings),
        text=True,
        env=env,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_run_killed_before_and_after_its_first_checkpoint_ends_bit_for_bit_as_one_that_was_not(tmp_path: Path):
    settings = config(env=UNEVEN, train_episodes=14, num_envs=3, checkpoint_every=4, memory="ffm")
    whole = train(settings, tmp_path / "whole")
    killed(settings, tmp_path / "parts", 1)
    assert not (tmp_path / "parts" / CHECKPOINTS).exists()
    killed(settings, tmp_path / "parts", 13, resume=True)
    assert (tmp_path / "parts" / CHECKPOINTS).exists()
    again = train(load_config(tmp_path / "parts"), tmp_path / "parts", resume=True)
    assert untimed(again.rows) == untimed(whole.rows)
    np.testing.assert_array_equal(again.final.returns, whole.final.returns)
    for a, b in zip(learner_of(settings, tmp_path / "whole"), learner_of(settings, tmp_path / "parts"), strict=True):
        np.testing.assert_array_equal(a, b)
    replays = (jax.tree.leaves(replay_of(settings, tmp_path / name)) for name in ("whole", "parts"))
    for a, b in zip(*replays, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (tmp_path / "parts" / "warnings.txt").exists()


def test_a_spoilt_episode_is_dropped_and_counted_and_the_run_goes_on(tmp_path: Path, at_reset: Callable[..., None]):
    def fail() -> None:
        raise RuntimeError("the simulator is gone")

    at_reset(3, fail)
    settings = config(num_envs=2)
    outcome = train(settings, tmp_path / "run")
    assert outcome.final is not None and outcome.rows[-1]["episode"] == settings.budget.train_episodes
    counters = checkpoint.counters(checkpoint.latest(tmp_path / "run" / CHECKPOINTS))
    assert counters["faults"] == 1 and counters["numbers"][1] == settings.budget.train_episodes + 1
    assert "dropped episode 3: " in (tmp_path / "run" / "warnings.txt").read_text()


def test_a_second_writer_is_refused_with_the_first_ones_id(tmp_path: Path):
    with (
        locked(tmp_path / "run"),
        pytest.raises(ValueError, match=rf"is being written by process {os.getpid()}, started"),
    ):
        train(config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_where_the_newest_checkpoint_is_damaged_the_one_before_it_is_used(tmp_path: Path):
    settings = config(train_episodes=8, checkpoint_every=3)
    whole = train(settings, tmp_path / "run")
    newest = checkpoint.latest(tmp_path / "run" / CHECKPOINTS)
    (newest / "manifest.json").write_text("{}")
    again = train(settings, tmp_path / "run", resume=True)
    assert untimed(again.rows) == untimed(whole.rows)
    assert newest.name in (tmp_path / "run" / "warnings.txt").read_text()
