"""The loop that joins an algorithm, an environment, a batching and a run directory."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from memoroids import checkpoint
from memoroids import tape as tapes
from memoroids.algorithms.dqn import DQN, DQNState, dqn
from memoroids.collect import Episode, RandomPolicy, RecurrentPolicy, collect
from memoroids.config import TrainConfig
from memoroids.envs import HostEnv
from memoroids.evaluate import Evaluation, Evaluator
from memoroids.metrics import Loggers, MetricsFile, draw_curve
from memoroids.networks import QNetwork
from memoroids.replay import TapeBuffer, TapeBufferState, tape_buffer

CONFIG, METRICS, CURVE, SUMMARY, CHECKPOINTS = "config.json", "metrics.csv", "curve.png", "summary.json", "checkpoints"

# Streams of environment seeds, apart from each other for every run seed.
_RANDOM, _TRAIN, _EVALUATE, _FINAL, _REPORT = range(5)


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says why and what is left."""


def environment_seeds(seed: int, stream: int, *index: int) -> Callable[[int], int]:
    """Episode number → environment seed, independent between streams and between runs' seeds."""
    return lambda number: int(np.random.SeedSequence((seed, stream, *index, number)).generate_state(1)[0])


class Parts(NamedTuple):
    """What a run is made of, before anything has been learned."""

    envs: list[HostEnv]
    eval_envs: list[HostEnv]
    network: QNetwork
    algorithm: DQN
    act_key: jax.Array
    update_key: jax.Array


def build(config: TrainConfig) -> Parts:
    """Environments, network and algorithm of `config`. Raises `ValueError` in one line where one cannot be made."""

    def make() -> HostEnv:
        return HostEnv(config.env, previous_action=config.previous_action, previous_reward=config.previous_reward)

    factory = config.memory_factory()
    envs = [make() for _ in range(config.copies)]
    eval_envs = [make() for _ in range(config.eval_episodes)]
    network_key, act_key, update_key = jax.random.split(jax.random.key(config.seed), 3)
    try:
        network = QNetwork(
            envs[0].observation_size,
            envs[0].actions,
            factory,
            key=network_key,
            width=config.width,
            sizes=config.memory_sizes,
        )
    except Exception as error:
        raise ValueError(f"cannot build memory {config.memory!r}: {' '.join(str(error).split())}") from error
    return Parts(envs, eval_envs, network, dqn(config.dqn, network), act_key, update_key)


@dataclass
class Counters:
    """What a run has done so far; saved with every checkpoint."""

    random: int = 0
    """Random episodes stored."""
    episode: int = 0
    """Training episodes stored and trained on."""
    env_steps: int = 0
    updates: int = 0
    transitions: float = 0.0
    min_length: int = 0
    max_length: int = 0
    """Bounds of episode lengths that batches have room for; 0: not known yet."""
    rows: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """A moment of a run, for whoever watches."""

    config: TrainConfig
    counters: Counters
    row: dict[str, float] | None
    """The newest row of metrics."""
    seconds_left: float | None


class Outcome(NamedTuple):
    """How a run ended: its evaluation on fresh seeds (None: interrupted), its rows and its directory."""

    final: Evaluation | None
    rows: list[dict[str, float]]
    run_dir: Path


class _Replay:
    """The buffer, with static shapes that grow with the lengths seen: a few compilations, never a refused episode."""

    def __init__(self, config: TrainConfig, hint: int | None, counters: Counters):
        self._config, self._hint, self._counters = config, hint, counters
        self.buffer: TapeBuffer | None = None
        self.state: TapeBufferState | None = None
        if counters.max_length:
            self._rebuild()

    def _rebuild(self) -> None:
        c = self._config
        self.buffer = tape_buffer(
            c.buffer_size, c.batch_size, self._counters.max_length, min_length=self._counters.min_length, cut=c.cut_batch
        )

    def add(self, episode: Episode) -> bool:
        """Stores an episode; True where the shape of batches changed."""
        counters, length = self._counters, episode.length
        changed = self.buffer is None or not counters.min_length <= length <= counters.max_length
        if changed:
            # Powers of two, so that a new extreme is rare; what the environment declares is exact.
            longest = self._hint if self._hint and length <= self._hint else 1 << (length - 1).bit_length()
            shortest = length if length == self._hint else 1 << (length.bit_length() - 1)
            counters.max_length = min(max(counters.max_length, longest), max(self._config.buffer_size - 1, length))
            counters.min_length = min(counters.min_length or shortest, shortest)
            self._rebuild()
        assert self.buffer is not None
        if self.state is None:
            self.state = self.buffer.init(episode.tape)
        room = min(max(64, 1 << episode.length.bit_length()), self._config.buffer_size)
        self.state = self.buffer.add(self.state, tapes.pad(episode.tape, room))
        return changed


def train(
    config: TrainConfig, run_dir: Path, *, resume: bool = False, watch: Callable[[Progress], None] = lambda _: None
) -> Outcome:
    """Trains as `config` says and writes `run_dir`: config, metrics, curve, summary and checkpoints.

    With `resume`, goes on from the newest checkpoint. Ctrl-C ends the run after the episodes under way, with a
    checkpoint. `watch` is called with the progress after every few episodes.

    Raises `ValueError`, `EnvironmentFault`, `CheckpointError` or `TrainingError`, each in one line.
    """
    parts = build(config)
    counters = Counters()
    checkpoints = run_dir / CHECKPOINTS
    learner = parts.algorithm.init(parts.network)
    restored = None
    if resume:
        path = checkpoint.latest(checkpoints)
        counters = Counters(**checkpoint.counters(path))
        learner = checkpoint.restore(path, "learner", learner)
        restored = path
    else:
        run_dir.mkdir(parents=True, exist_ok=True)
        if (run_dir / CONFIG).exists():
            raise ValueError(f"{run_dir} holds another run: choose another --run-dir, or `memoroids resume {run_dir}`")
        (run_dir / CONFIG).write_text(config.to_json() + "\n")
    run = _Run(config, run_dir, parts, counters, learner, watch)
    if restored is not None:
        run.restore_replay(restored)
    try:
        with _interruptible() as interrupted:
            return run.run(interrupted)
    finally:
        run.close()


class _Run:
    """One run's mutable state: what has been collected, learned and written so far."""

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        parts: Parts,
        counters: Counters,
        learner: DQNState,
        watch: Callable[[Progress], None],
    ):
        self.config, self.run_dir, self.parts, self.counters, self.learner = config, run_dir, parts, counters, learner
        self.watch = watch
        self.replay = _Replay(config, parts.envs[0].max_length, counters)
        self.metrics = MetricsFile(run_dir / METRICS, keep=counters.rows)
        self.loggers = Loggers(run_dir, asdict(config), tensorboard=config.tensorboard, wandb=config.wandb)
        self.evaluator = Evaluator(parts.eval_envs, parts.algorithm.act, parts.network.initial_state())
        self.started = time.perf_counter() - counters.seconds
        self.window: list[float] = []
        self.since = (time.perf_counter(), counters.env_steps, counters.updates, int(learner.skipped))
        self.update = self._compile_update()
        self.recent: list[dict[str, jax.Array]] = []
        self.seconds_left: float | None = None

    def restore_replay(self, path: Path) -> None:
        buffer = self.replay.buffer
        if buffer is None:
            return
        env = self.parts.envs[0]
        observation = np.zeros((2, env.observation_size), np.float32)
        example = tapes.episode(observation, np.zeros(1, np.int32), np.zeros(1), True, False)
        self.replay.state = checkpoint.restore(path, "replay", buffer.init(example))

    def run(self, interrupted: Callable[[], bool]) -> Outcome:
        config, counters, parts = self.config, self.counters, self.parts
        random = RandomPolicy(parts.envs[0].actions, config.seed)
        seeds = environment_seeds(config.seed, _RANDOM)
        for episode in collect(parts.envs, random, seeds, counters.random, config.random_episodes):
            self.store(episode)
            counters.random += 1
            if counters.random % 50 == 0:
                self.report()
            if interrupted():
                return self.stop()

        policy = RecurrentPolicy(
            parts.algorithm.act,
            parts.network.initial_state(),
            config.copies,
            params=lambda: self.learner.params,
            epsilon=self.epsilon,
            key=parts.act_key,
        )
        seeds = environment_seeds(config.seed, _TRAIN)
        begun, first = time.perf_counter(), counters.episode
        for episode in collect(parts.envs, policy, seeds, counters.episode, config.train_episodes):
            self.store(episode)
            self.window.append(episode.total)
            for _ in range(config.updates_per_episode):
                key = jax.random.fold_in(parts.update_key, counters.updates)
                self.learner, metrics = self.update(self.learner, self.replay.state, key)
                self.recent.append(metrics)
                counters.updates += 1
            counters.episode += 1
            if counters.episode % config.eval_every == 0 or counters.episode == config.train_episodes:
                self.evaluate()
                pace = (time.perf_counter() - begun) / (counters.episode - first)
                self.seconds_left = pace * (config.train_episodes - counters.episode)
                self.report()
            if interrupted():
                return self.stop()
            if counters.episode % config.checkpoint_every == 0 and counters.episode < config.train_episodes:
                self.save()
        final = self.evaluator(self.learner.params, config.final_episodes, environment_seeds(config.seed, _FINAL))
        self.finish(final)
        return Outcome(final, self.metrics.rows, self.run_dir)

    def epsilon(self, number: np.ndarray) -> np.ndarray:
        config = self.config
        share = np.minimum(number / max(config.train_episodes - 1, 1), 1.0)
        return (config.epsilon_start + share * (config.epsilon_end - config.epsilon_start)).astype(np.float32)

    def store(self, episode: Episode) -> None:
        if self.replay.add(episode):
            self.update = self._compile_update()
        self.counters.env_steps += episode.length

    def _compile_update(self) -> Callable[..., tuple[DQNState, dict[str, jax.Array]]]:
        """Sampling and updating as one program; the learner's arrays are donated to their successors."""
        buffer, algorithm, count = self.replay.buffer, self.parts.algorithm, self.config.batch_size

        def sample_and_update(learner: DQNState, replay: TapeBufferState, key: jax.Array) -> Any:
            assert buffer is not None
            return algorithm.update(learner, buffer.sample(replay, key), count)

        return jax.jit(sample_and_update, donate_argnums=0)

    def evaluate(self) -> None:
        config, counters = self.config, self.counters
        seeds = environment_seeds(config.seed, _EVALUATE, counters.episode)
        evaluation = self.evaluator(self.learner.params, config.eval_episodes, seeds)
        now = time.perf_counter()
        then, steps, updates, skipped = self.since
        recent = jax.device_get(self.recent)
        names = ("loss", "td_error", "q_mean", "grad_norm")
        means = {name: float(np.mean([m[name] for m in recent])) if recent else math.nan for name in names}
        counters.transitions += sum(float(m["transitions"]) for m in recent)
        counters.seconds = now - self.started
        row = {
            "episode": counters.episode,
            "env_steps": counters.env_steps,
            "updates": counters.updates,
            "transitions": counters.transitions,
            **means,
            "epsilon": float(self.epsilon(np.asarray(counters.episode - 1))),
            "train_return": float(np.mean(self.window)),
            "eval_return": evaluation.mean,
            "skipped": int(self.learner.skipped),
            "steps_per_s": (counters.env_steps - steps) / (now - then),
            "seconds": counters.seconds,
        }
        self.metrics.write(row)
        self.loggers.write(row)
        counters.rows += 1
        self.window, self.recent = [], []
        self.since = (now, counters.env_steps, counters.updates, int(row["skipped"]))
        if counters.updates > updates and row["skipped"] - skipped == counters.updates - updates:
            self.save()
            raise TrainingError(
                f"loss or gradient not finite in all {counters.updates - updates} updates up to training episode "
                f"{counters.episode}; the parameters before them are in {self.run_dir / CHECKPOINTS}"
            )

    def report(self) -> None:
        rows = self.metrics.rows
        self.watch(Progress(self.config, replace(self.counters), rows[-1] if rows else None, self.seconds_left))

    def save(self) -> None:
        self.counters.seconds = time.perf_counter() - self.started
        parts: dict[str, Any] = {"learner": self.learner}
        if self.replay.state is not None:
            parts["replay"] = self.replay.state
        step = self.counters.random + self.counters.episode
        checkpoint.save(self.run_dir / CHECKPOINTS, step, parts, asdict(self.counters))
        if self.metrics.rows:
            title = f"{self.config.env}, {self.config.memory}, seed {self.config.seed}"
            draw_curve(self.run_dir / CURVE, self.metrics.rows, title)

    def stop(self) -> Outcome:
        self.save()
        return Outcome(None, self.metrics.rows, self.run_dir)

    def finish(self, final: Evaluation) -> None:
        self.save()
        returns = [row["eval_return"] for row in self.metrics.rows]
        summary = {
            "final_return": final.mean,
            "final_interval": final.interval(),
            "final_episodes": len(final.returns),
            "last_eval_return": returns[-1],
            "mean_eval_return": float(np.mean(returns)),
            "max_eval_return": float(np.max(returns)),
            "episodes_to_0.95": episodes_to(self.metrics.rows, 0.95),
            **asdict(self.counters),
        }
        (self.run_dir / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")

    def close(self) -> None:
        self.metrics.close()
        self.loggers.close()
        for env in (*self.parts.envs, *self.parts.eval_envs):
            env.close()


def episodes_to(rows: list[dict[str, float]], level: float, stay: int = 5) -> int | None:
    """Training episodes until the greedy evaluation first reaches `level` and stays there for the next `stay`."""
    returns = [row["eval_return"] for row in rows]
    for i in range(len(returns) - stay):
        if min(returns[i : i + stay + 1]) >= level:
            return int(rows[i]["episode"])
    return None


def load(run_dir: Path) -> tuple[TrainConfig, Parts, Any]:
    """Settings, parts and newest parameters of a run. Raises `ValueError` or `CheckpointError`."""
    config = load_config(run_dir)
    parts = build(config)
    path = checkpoint.latest(run_dir / CHECKPOINTS)
    checkpoint.counters(path)  # digests
    learner = checkpoint.restore(path, "learner", parts.algorithm.init(parts.network))
    return config, parts, learner.params


def load_config(run_dir: Path) -> TrainConfig:
    """The settings of a run. Raises `ValueError` where `run_dir` holds none that can be read."""
    path = run_dir / CONFIG
    try:
        return TrainConfig.from_json(path.read_text())
    except OSError as error:
        raise ValueError(f"{run_dir} holds no run: {path} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def evaluate_run(run_dir: Path, episodes: int, seed: int) -> Evaluation:
    """Greedy episodes with a run's newest parameters on fresh environment seeds, apart from the run's own."""
    config, parts, params = load(run_dir)
    evaluator = Evaluator(parts.eval_envs, parts.algorithm.act, parts.network.initial_state())
    return evaluator(params, episodes, environment_seeds(config.seed, _REPORT, seed))


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a flag, read between episodes; the second acts as always."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: Any) -> None:
        flag.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, handle)
    try:
        yield flag.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
