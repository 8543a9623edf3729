"""The loop that joins an algorithm, an environment, a batching and a run directory."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from memoroids import checkpoint
from memoroids import tape as tapes
from memoroids.algorithms.dqn import DQNState
from memoroids.checkpoint import CheckpointError
from memoroids.collect import Episode, RandomPolicy, RecurrentPolicy, collect
from memoroids.config import TrainConfig
from memoroids.envs import EnvironmentFault
from memoroids.evaluate import Evaluation, Evaluator
from memoroids.metrics import Loggers, MetricsFile, draw_curve
from memoroids.parts import EVALUATE, FINAL, RANDOM, TRAIN, Parts, build, environment_seeds, replay
from memoroids.rundir import CHECKPOINTS, CONFIG, CURVE, HEATMAP, METRICS, SENSITIVITY, SUMMARY
from memoroids.sensitivity import (
    Profile,
    SensitivityLog,
    draw_heatmap,
    read_log,
    reward_memory_length,
    sensitivities,
)


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says why and what is left."""


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
    slots: float = 0.0
    bounds: list[int] = field(default_factory=lambda: [0, 0])
    """What fixes the shape of batches (see `HostTapeBuffer`, `HostSegmentBuffer`); 0: not known yet."""
    rows: int = 0
    seconds: float = 0.0
    returns: list[float] = field(default_factory=list)
    """Returns of the training episodes since the last row of metrics."""
    recent: list[dict[str, float]] = field(default_factory=list)
    """Metrics of the updates since the last row."""


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


def train(
    config: TrainConfig, run_dir: Path, *, resume: bool = False, watch: Callable[[Progress], None] = lambda _: None
) -> Outcome:
    """Trains as `config` says and writes `run_dir`: config, metrics, curve, summary and checkpoints.

    With `resume`, goes on from the newest checkpoint. Ctrl-C ends the run after the episodes under way, with a
    checkpoint; so does an environment that misbehaves, after the episodes before the bad one. `watch` is called with
    the progress after every few episodes.

    Raises `ValueError`, `EnvironmentFault`, `CheckpointError` or `TrainingError`, each in one line.
    """
    parts = build(config)
    counters = Counters()
    learner = parts.algorithm.init(parts.network)
    restored = None
    if resume:
        restored = checkpoint.latest(run_dir / CHECKPOINTS)
        try:
            counters = Counters(**checkpoint.counters(restored))
        except TypeError as error:
            raise CheckpointError(f"unreadable checkpoint {restored}: its counters are not a run's: {error}") from error
        learner = checkpoint.restore(restored, "learner", learner)
    elif (run_dir / CONFIG).exists():
        raise ValueError(f"{run_dir} holds another run: choose another --run-dir, or `memoroids resume {run_dir}`")
    loggers = Loggers(run_dir, asdict(config), tensorboard=config.tensorboard, wandb=config.wandb)
    if not resume:
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / CONFIG).write_text(config.to_json() + "\n")
    run = _Run(config, run_dir, parts, counters, learner, loggers, watch)
    try:
        if restored is not None:
            run.restore_replay(restored)
        with _interruptible() as interrupted:
            return run.run(interrupted)
    except EnvironmentFault:
        run.save()
        raise
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
        loggers: Loggers,
        watch: Callable[[Progress], None],
    ):
        self.config, self.run_dir, self.parts, self.counters, self.learner = config, run_dir, parts, counters, learner
        self.loggers, self.watch = loggers, watch
        self.replay = replay(config, parts, (counters.bounds[0], counters.bounds[1]))
        self.metrics = MetricsFile(run_dir / METRICS, keep=counters.rows)
        self.profiles = None
        if config.sensitivity_every:
            self.profiles = SensitivityLog(run_dir / SENSITIVITY, keep=counters.episode)
        self.evaluator = Evaluator(parts.eval_envs, parts.algorithm.act, parts.network.initial_state())
        self.started = time.perf_counter() - counters.seconds
        self.since = (time.perf_counter(), counters.env_steps, counters.updates, int(learner.skipped))
        self.update = self._compile_update()
        self.recent: list[dict[str, jax.Array]] = []  # on device until they are needed
        self.seconds_left: float | None = None

    def restore_replay(self, path: Path) -> None:
        if self.counters.random + self.counters.episode == 0:
            return
        env = self.parts.envs[0]
        observation = np.zeros((2, *env.observation_shape), env.observation_dtype)
        example = tapes.episode(observation, np.zeros(1, np.int32), np.zeros(1), True, False)
        restored = checkpoint.restore(path, "replay", self.replay.like(example))
        self.replay.restore(restored, self.counters.env_steps)

    def run(self, interrupted: Callable[[], bool]) -> Outcome:
        config, counters, parts = self.config, self.counters, self.parts
        self.report()
        random = RandomPolicy(parts.envs[0].actions, config.seed)
        seeds = environment_seeds(config.seed, RANDOM)
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
        seeds = environment_seeds(config.seed, TRAIN)
        begun, first = time.perf_counter(), counters.episode
        for episode in collect(parts.envs, policy, seeds, counters.episode, config.train_episodes):
            self.store(episode)
            counters.returns.append(episode.total)
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
        final = self.evaluator(self.learner.params, config.final_episodes, environment_seeds(config.seed, FINAL))
        self.finish(final)
        return Outcome(final, self.metrics.rows, self.run_dir)

    def epsilon(self, number: np.ndarray) -> np.ndarray:
        config = self.config
        share = np.minimum(number / max(config.train_episodes - 1, 1), 1.0)
        return (config.epsilon_start + share * (config.epsilon_end - config.epsilon_start)).astype(np.float32)

    def store(self, episode: Episode) -> None:
        try:
            changed = self.replay.add(episode.tape, self.learner.params)
        except ValueError as error:
            raise ValueError(f"{error} (--buffer-size)") from error
        if changed:
            self.counters.bounds = list(self.replay.bounds)
            self.update = self._compile_update()
        self.counters.env_steps += episode.length

    def _compile_update(self) -> Callable[..., tuple[DQNState, dict[str, jax.Array]]]:
        """Sampling and updating as one program; the learner's arrays are donated to their successors."""
        buffer, algorithm, count = self.replay.functions, self.parts.algorithm, self.config.batch_size

        def sample_and_update(learner: DQNState, replay: Any, key: jax.Array) -> Any:
            assert buffer is not None
            return algorithm.update(learner, buffer.sample(replay, key), count)

        return jax.jit(sample_and_update, donate_argnums=0)

    def evaluate(self) -> None:
        config, counters = self.config, self.counters
        seeds = environment_seeds(config.seed, EVALUATE, counters.episode)
        if self.profiles is None or counters.episode - self.profiles.episode < config.sensitivity_every:
            evaluation = self.evaluator(self.learner.params, config.eval_episodes, seeds)
        else:
            played = self.evaluator.play(self.learner.params, config.eval_episodes, seeds)
            evaluation = Evaluation.of(played)
            network = self.parts.algorithm.network(self.learner.params)
            found = sensitivities(network, [episode.tape for episode in played])
            self.profiles.write(counters.episode, Profile.of(found))
        now = time.perf_counter()
        then, steps, updates, skipped = self.since
        self.fetch()
        recent = counters.recent
        names = ("loss", "td_error", "q_mean", "grad_norm")
        means = {name: float(np.mean([m[name] for m in recent])) if recent else math.nan for name in names}
        counters.transitions += sum(m["transitions"] for m in recent)
        counters.slots += sum(m["slots"] for m in recent)
        counters.seconds = now - self.started
        row = {
            "episode": counters.episode,
            "env_steps": counters.env_steps,
            "updates": counters.updates,
            "transitions": counters.transitions,
            "slots": counters.slots,
            **means,
            "epsilon": float(self.epsilon(np.asarray(counters.episode - 1))),
            "train_return": float(np.mean(counters.returns)),
            "eval_return": evaluation.mean,
            "skipped": int(self.learner.skipped),
            "steps_per_s": (counters.env_steps - steps) / (now - then),
            "seconds": counters.seconds,
        }
        self.metrics.write(row)
        self.loggers.write(row)
        counters.rows += 1
        counters.returns, counters.recent = [], []
        self.since = (now, counters.env_steps, counters.updates, int(row["skipped"]))
        if counters.updates > updates and row["skipped"] - skipped == counters.updates - updates:
            self.save()
            raise TrainingError(
                f"loss or gradient not finite in all {counters.updates - updates} updates up to training episode "
                f"{counters.episode}; the parameters before them are in {self.run_dir / CHECKPOINTS}"
            )

    def fetch(self) -> None:
        """Moves the metrics of recent updates from the device into the counters, which a checkpoint keeps."""
        fetched = jax.device_get(self.recent)
        self.counters.recent += [{name: float(value) for name, value in m.items()} for m in fetched]
        self.recent = []

    def report(self) -> None:
        rows = self.metrics.rows
        self.watch(Progress(self.config, replace(self.counters), rows[-1] if rows else None, self.seconds_left))

    def save(self) -> None:
        self.counters.seconds = time.perf_counter() - self.started
        self.fetch()
        parts: dict[str, Any] = {"learner": self.learner}
        if self.replay.state is not None:
            parts["replay"] = self.replay.state
        step = self.counters.random + self.counters.episode
        checkpoint.save(self.run_dir / CHECKPOINTS, step, parts, asdict(self.counters))
        title = f"{self.config.env}, {self.config.memory}, seed {self.config.seed}"
        if self.metrics.rows:
            draw_curve(self.run_dir / CURVE, self.metrics.rows, title)
        if self.profiles is not None and self.profiles.episode:
            rml = reward_memory_length(self.parts.envs[0].env)
            draw_heatmap(self.run_dir / HEATMAP, read_log(self.run_dir / SENSITIVITY), rml=rml, title=title)

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
            **{name: value for name, value in asdict(self.counters).items() if name not in ("returns", "recent")},
        }
        (self.run_dir / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")

    def close(self) -> None:
        self.metrics.close()
        if self.profiles is not None:
            self.profiles.close()
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


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a flag, read between episodes; the second acts as always."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: Any, frame: Any) -> None:
        flag.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, handle)
    try:
        yield flag.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
