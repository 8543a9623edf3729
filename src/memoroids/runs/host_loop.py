"""Training with environments on the host: episodes come in one at a time, and learning follows each."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.runs import checkpoint
from memoroids import tape as tapes
from memoroids.acting.evaluation import Evaluation, Evaluator
from memoroids.acting.host_collection import Collector, Episode, pack, packed_like, unpack
from memoroids.acting.policies import Policy, RandomPolicy, RecurrentPolicy
from memoroids.agents.rollout_batch import Rollout
from memoroids.runs.checkpoint import CheckpointError
from memoroids.runs.settings import TrainConfig
from memoroids.envs import EnvironmentFault
from memoroids.envs.spaces import Continuous
from memoroids.runs.metrics import MEANS
from memoroids.runs.build import EVALUATE, FINAL, RANDOM, TRAIN, Parts, environment_seeds, replay
from memoroids.runs.recorder import Outcome, Recorder
from memoroids.runs.run_directory import HEATMAP, SENSITIVITY
from memoroids.analysis.sensitivity import (
    Profile,
    SensitivityLog,
    draw_heatmap,
    read_log,
    reward_memory_length,
    sensitivities,
)


class HostRun:
    """One run's mutable state: what has been collected and learned so far."""

    def __init__(self, config: TrainConfig, parts: Parts, recorder: Recorder, learner: Any):
        self.config, self.parts, self.recorder, self.learner = config, parts, recorder, learner
        assert isinstance(parts.evaluator, Evaluator)
        self.evaluator = parts.evaluator
        self.counters = recorder.counters
        self.replay = replay(config, parts, (self.counters.bounds[0], self.counters.bounds[1]))
        self.profiles = None
        if config.sensitivity_every:
            self.profiles = SensitivityLog(recorder.run_dir / SENSITIVITY, keep=self.counters.episode)
        self.update = self._compile_update()
        self.collecting: tuple[int, Collector] | None = None
        self.restored: Path | None = None
        self.recent: list[dict[str, jax.Array]] = []  # on device until they are needed

    def restore(self, path: Path) -> None:
        """Takes up the replay of a checkpoint, and with the first collection the episodes that were open."""
        self.restored = path
        if self.config.algorithm != "dqn" or self.counters.random + self.counters.episode == 0:
            return
        env = self.parts.host.example
        observation = np.zeros((2, *env.observation_shape), env.observation_dtype)
        several = (env.actions.size,) if isinstance(env.actions, Continuous) else ()
        action = np.zeros((1, *several), np.float32 if several else np.int32)
        example = tapes.episode(observation, action, np.zeros(1), True, False)
        restored = checkpoint.restore(path, "replay", self.replay.like(example))
        self.replay.restore(restored, self.counters.env_steps)

    def run(self, interrupted: Callable[[], bool]) -> Outcome:
        """Collects and learns to the end, or until `interrupted`; a checkpoint is written either way."""
        config, counters, parts = self.config, self.counters, self.parts
        self.recorder.report()
        random = RandomPolicy(parts.host.example.actions, config.seed)
        for episode in self.collect(random, RANDOM, config.random_episodes - counters.random):
            self.store(episode)
            counters.random += 1
            if counters.random % 50 == 0:
                self.recorder.report()
            if interrupted():
                return self.stop()

        self.recorder.training_begins()
        self.evaluate_if_due()
        learn = self.learn_from_replay if config.algorithm == "dqn" else self.learn_on_policy
        for _ in learn():
            if interrupted():
                return self.stop()
        self.collecting = None  # a run that ends has nothing open, whichever process it ends in
        self.save()  # before what is counted in the final evaluation, which a resumed run plays again
        seeds = environment_seeds(config.seed, FINAL)
        final = self.evaluator(self.learner.params, config.final_episodes, seeds, self.ended)
        self.recorder.finish(final)
        return Outcome(final, self.recorder.rows, self.recorder.run_dir)

    def collect(self, policy: Policy, stream: int, wanted: int) -> Iterator[Episode]:
        """The next `wanted` episodes of a stream of seeds; what was open at a restored checkpoint goes on."""
        counters, seeds = self.counters, environment_seeds(self.config.seed, stream)
        start = counters.numbers[stream]
        collector = Collector(self.parts.host, policy, seeds, start, start + wanted, ended=self.ended)
        plan = counters.collection
        if self.restored is not None and plan is not None and plan["stream"] == stream:
            like = packed_like(plan, self.parts.host.example, policy.memory())
            arrays = checkpoint.restore(self.restored, "collection", like) if jax.tree.leaves(like) else like
            try:
                anew = collector.restore(unpack(plan, arrays))
            except EnvironmentFault as fault:  # nothing has happened that a checkpoint should hold
                raise CheckpointError(f"cannot play the open episodes of {self.restored} again: {fault}") from fault
            if anew:
                self.recorder.warn(
                    f"{self.config.env} did not show the same when its open episodes were played again: episodes "
                    f"{', '.join(map(str, anew))} begin anew, and the run is no longer what it would have been "
                    "without the interruption"
                )
            self.restored = None
        self.collecting = stream, collector
        for episode in collector:
            counters.numbers[stream] = collector.due
            yield episode
        counters.numbers[stream], self.collecting = collector.due, None

    def ended(self, fault: EnvironmentFault | None) -> None:
        """Counts an episode that its environment spoiled. Raises `EnvironmentFault` after too many in a row."""
        if fault is None:
            self.counters.faults_in_a_row = 0
        else:
            self.recorder.add_faults(1, str(fault))

    def learn_from_replay(self) -> Any:
        """Stores each episode as it comes in and follows it with updates; yields after each."""
        config, counters = self.config, self.counters
        policy = self.policy(self.epsilon)
        stop = config.train_episodes if config.train_steps is None else 2**31 - 1
        if self.done():
            return
        for episode in self.collect(policy, TRAIN, stop - counters.episode):
            self.store(episode)
            self.recorder.add_returns(episode.total, 1)
            for _ in range(config.updates_per_episode):
                key = jax.random.fold_in(self.parts.update_key, counters.updates)
                self.learner, metrics, _ = self.update(self.learner, self.replay.state, key)
                self.recent.append(metrics)
                counters.updates += 1
            counters.episode += 1
            self.after(1)
            yield
            if self.done():
                return

    def learn_on_policy(self) -> Any:
        """Whole episodes of one policy, one for each copy, then an update; yields after each."""
        config, counters = self.config, self.counters
        exploration = self.epsilon if config.algorithm == "pqn" else lambda number: np.ones(number.shape, np.float32)
        each = config.rollout_updates
        while not self.done():
            policy = self.policy(exploration)
            played = list(self.collect(policy, TRAIN, config.num_envs))
            # Powers of two, so that few shapes are compiled; rows end in padding.
            longest = max(episode.tape.slots for episode in played)
            padded_slots = 1 << (longest - 1).bit_length()
            rows = [tapes.pad(episode.tape, padded_slots) for episode in played]
            tape = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *rows)
            begun = [self.parts.network.initial_state()] * len(rows)
            state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *begun)
            key = jax.random.fold_in(self.parts.update_key, counters.updates)
            self.learner, metrics = self.update(self.learner, Rollout(tape, state), key)
            self.recent.append({name: leaf * each if name in MEANS else leaf for name, leaf in metrics.items()})
            counters.updates += each
            counters.env_steps += sum(episode.length for episode in played)
            counters.episode += len(played)
            self.recorder.add_returns(sum(episode.total for episode in played), len(played))
            self.after(len(played))
            yield

    def policy(self, epsilon: Callable[[np.ndarray], np.ndarray]) -> RecurrentPolicy:
        parts = self.parts
        return RecurrentPolicy(
            parts.algorithm.act,
            parts.network.initial_state(),
            self.config.num_envs,
            params=lambda: self.learner.params,
            epsilon=epsilon,
            key=parts.act_key,
        )

    def done(self) -> bool:
        return self.config.share_done(self.counters.episode, self.counters.env_steps) >= 1

    def after(self, episodes: int) -> None:
        """Evaluates and saves where the newest `episodes` have reached the next time for it."""
        config, counters = self.config, self.counters
        before = counters.episode - episodes
        self.evaluate_if_due()
        # Nothing waits for it: the next action needs the parameters that this update gives.
        self.recorder.watch_divergence(self.learner.skipped, self.learner.divergence)
        if counters.episode // config.checkpoint_every > before // config.checkpoint_every and not self.done():
            self.save()

    def evaluate_if_due(self) -> None:
        """Evaluates where it is time to; a run may have ended before it could."""
        if self.recorder.due():
            self.evaluate()
            self.recorder.report()

    def epsilon(self, number: np.ndarray) -> np.ndarray:
        config = self.config
        if config.train_steps is None:
            share = np.minimum(number / max(config.train_episodes - 1, 1), 1.0)
        else:
            share = np.full(number.shape, config.share_done(0, self.counters.env_steps))
        return config.epsilon_at(share).astype(np.float32)

    def store(self, episode: Episode) -> None:
        try:
            changed = self.replay.add(episode.tape, self.learner.params)
        except ValueError as error:
            raise ValueError(f"{error} (--buffer-size)") from error
        if changed:
            self.counters.bounds = list(self.replay.bounds)
            self.update = self._compile_update()
        self.counters.env_steps += episode.length

    def _compile_update(self) -> Callable[..., Any]:
        """Learning as one program, sampling included; the learner's arrays are donated to their successors."""
        buffer, count = self.replay.functions, self.config.batch_size
        learn: Any = self.parts.algorithm.update  # from a sample or from a rollout
        if self.config.algorithm != "dqn":
            return jax.jit(learn, donate_argnums=0)

        def sample_and_update(learner: Any, replay: Any, key: jax.Array) -> Any:
            assert buffer is not None
            return learn(learner, buffer.sample(replay, key), count)

        return jax.jit(sample_and_update, donate_argnums=0)

    def evaluate(self) -> None:
        config, counters, parts = self.config, self.counters, self.parts
        seeds = environment_seeds(config.seed, EVALUATE, counters.episode)
        if self.profiles is None or counters.episode - self.profiles.episode < config.sensitivity_every:
            evaluation = self.evaluator(self.learner.params, config.eval_episodes, seeds, self.ended)
        else:
            played = self.evaluator.play(self.learner.params, config.eval_episodes, seeds, self.ended)
            evaluation = Evaluation.of(played)
            found = sensitivities(parts.algorithm.network(self.learner.params), [episode.tape for episode in played])
            self.profiles.write(counters.episode, Profile.of(found))
        self.fetch()
        epsilon = float(self.epsilon(np.asarray([counters.episode - 1]))[0])
        self.recorder.write_row(evaluation.mean, epsilon, int(self.learner.skipped), lambda: self.learner.params)

    def fetch(self) -> None:
        """Moves the metrics of recent updates from the device into the counters, which a checkpoint keeps."""
        for metrics in jax.device_get(self.recent):
            self.recorder.add_updates(metrics, self.config.rollout_updates)
        self.recent = []

    def save(self) -> None:
        """Writes a checkpoint."""
        self.fetch()
        parts: dict[str, Any] = {"learner": self.learner}
        if self.replay.state is not None:
            parts["replay"] = self.replay.state
        self.counters.collection = None
        if self.collecting is not None:
            stream, collector = self.collecting
            plan, arrays = pack(collector.state())
            self.counters.collection = {"stream": stream, **plan}
            if jax.tree.leaves(arrays):
                parts["collection"] = arrays
        self.recorder.save(parts)
        if self.profiles is not None and self.profiles.episode:
            rml = reward_memory_length(self.parts.host.example.env)
            path = self.recorder.run_dir
            draw_heatmap(path / HEATMAP, read_log(path / SENSITIVITY), rml=rml, title=self.recorder.title)

    def stop(self) -> Outcome:
        self.save()
        return Outcome(None, self.recorder.rows, self.recorder.run_dir)

    def close(self) -> None:
        """Closes files and environments."""
        self.recorder.close()
        if self.profiles is not None:
            self.profiles.close()
        self.parts.close()
