"""Training with host environments: episodes are collected, and the learner is updated between them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.acting.collection_state import Episode, pack, packed_like, unpack
from memoroids.acting.evaluation import Evaluation, Evaluations
from memoroids.acting.host_collection import Collector, why_again
from memoroids.acting.host_rollouts import RolloutCollector
from memoroids.acting.policies import Policy, RandomPolicy, RecurrentPolicy
from memoroids.agents.base import TrainingShare
from memoroids.agents.branches import value_of
from memoroids.agents.rollout_batch import Rollout
from memoroids.analysis.sensitivity import Profile, reward_memory_length, sensitivities
from memoroids.envs import EnvironmentFault
from memoroids.runs import checkpoint
from memoroids.runs.baseline import host_baseline
from memoroids.runs.build import HostParts, host_slots, host_update
from memoroids.runs.build_replay import host_replay, shortest_episode
from memoroids.runs.checkpoint import CheckpointError
from memoroids.runs.metrics import MEANS
from memoroids.runs.plots import draw_heatmap
from memoroids.runs.progress import Outcome
from memoroids.runs.recorder import Recorder
from memoroids.runs.run_directory import HEATMAP, SENSITIVITY
from memoroids.runs.schedule import exploration, newest_epsilon, save_due, share_at, updates_due
from memoroids.runs.seeds import EVALUATE, FINAL, RANDOM, TRAIN, environment_seeds
from memoroids.runs.sensitivity_log import SensitivityLog, read_log
from memoroids.runs.settings import TrainConfig
from memoroids.runs.stopwatch import Stopwatch, TimedEnvs, TimedPolicy, await_update, timed_update


class Interrupted(Exception):
    """Raised to end an evaluation that a run does not wait for."""


class HostRun:
    """A run with host environments: its replay, learner and open files."""

    def __init__(self, config: TrainConfig, parts: HostParts, recorder: Recorder, learner: Any):
        self.stopwatch = Stopwatch()
        parts = parts._replace(envs=TimedEnvs(parts.envs, self.stopwatch))
        self.config, self.parts, self.recorder, self.learner = config, parts, recorder, learner
        self.evaluator = parts.evaluator
        self.counters = recorder.counters
        self.from_replay = parts.agent.traits.learns_from_replay
        self.replay = host_replay(config, parts, (self.counters.bounds[0], self.counters.bounds[1]))
        self.profiles = None
        if config.evaluation.sensitivity_every:
            self.profiles = SensitivityLog(recorder.run_dir / SENSITIVITY, keep=self.counters.episode)
        self.update = self._compile_update()
        self.behaviour = jax.tree.map(jnp.copy, learner.params) if config.collection.overlap else None
        self.collecting: tuple[int, Collector | RolloutCollector] | None = None
        self.restored: Path | None = None
        self.interrupted: Callable[[], bool] = lambda: False
        self.recent: list[dict[str, jax.Array]] = []  # metrics of recent updates, kept on device until a row needs them

    def restore(self, path: Path) -> None:
        """Restores the replay from a checkpoint; `collect` restores its episodes in progress."""
        self.restored = path
        if self.behaviour is not None:
            self.behaviour = checkpoint.restore(path, "behaviour", self.behaviour)
        if not self.from_replay or self.counters.random + self.counters.episode == 0:
            return
        like = self.replay.like(shortest_episode(self.parts.envs.example))
        self.replay.restore(checkpoint.restore(path, "replay", like), self.counters.env_steps)

    def run(self, interrupted: Callable[[], bool]) -> Outcome:
        """Collects and learns to the end or until `interrupted()`, and writes a checkpoint.

        An evaluation is not finished after `interrupted()`: the resumed run repeats it.

        Raises `EnvironmentFault` or `TrainingError` if training cannot continue.
        """
        config, counters, parts = self.config, self.counters, self.parts
        self.interrupted = interrupted
        self.recorder.report()
        try:
            self.recorder.begin(lambda: host_baseline(config, parts, self.check))
        except Interrupted:
            return self.stop()
        random = RandomPolicy(parts.envs.example.actions, config.seed)
        wanted = 0 if self.done() else config.budget.random_episodes - counters.random
        for episode in self.collect(random, RANDOM, wanted):
            self.store(episode)
            counters.random += 1
            counters.random_steps += episode.length
            if counters.random % 50 == 0:
                self.recorder.report()
            if interrupted():
                return self.stop()
            if self.done():
                break
        if self.done() and not counters.episode:
            raise self.recorder.untrained()

        self.recorder.training_begins()
        learn = self.learn_from_replay if self.from_replay else self.learn_on_policy
        try:
            self.evaluate_if_due()
            for _ in learn():
                if interrupted():
                    return self.stop()
        except Interrupted:
            return self.stop()
        self.collecting = None  # a resumed run has no collection here either, so both write the same checkpoint
        self.save()  # before the final evaluation counts faults, since a resumed run repeats that evaluation
        seeds = environment_seeds(config.seed, FINAL)
        episodes = config.evaluation.final_episodes
        try:
            finals = self.evaluator(self.learner.params, episodes, seeds, self.evaluation_ended)
        except Interrupted:
            return self.outcome(None)
        self.recorder.finish(finals)
        return self.outcome(finals)

    def collect(self, policy: Policy, stream: int, wanted: int) -> Iterator[Episode]:
        """Collects the next `wanted` episodes of a stream of seeds; restores episodes in progress from a checkpoint."""
        counters, seeds = self.counters, environment_seeds(self.config.seed, stream)
        start = counters.numbers[stream]
        collector = Collector(self.parts.envs, policy, seeds, start, start + wanted, ended=self.ended)
        self.restore_collection(collector, policy, stream)
        self.collecting = stream, collector
        for episode in collector:
            counters.numbers[stream] = collector.due
            yield episode
        counters.numbers[stream], self.collecting = collector.due, None

    def restore_collection(self, collector: Collector | RolloutCollector, policy: Policy, stream: int) -> None:
        """Restores episodes in progress from a checkpoint, if it has any of this stream."""
        plan = self.counters.collection
        if self.restored is None or plan is None or plan["stream"] != stream:
            return
        like = packed_like(plan, self.parts.envs.example, policy.memory())
        arrays = checkpoint.restore(self.restored, "collection", like) if jax.tree.leaves(like) else like
        try:
            diverged = collector.restore(unpack(plan, arrays))
        except EnvironmentFault as fault:  # a `CheckpointError`, because no new checkpoint should be written
            raise CheckpointError(f"cannot replay the episodes in progress of {self.restored}: {fault}") from fault
        if diverged:
            self.recorder.warn(
                f"{self.config.env.id} {why_again(self.parts.envs)}: episodes {', '.join(map(str, diverged))} start "
                "again, and the run differs from an uninterrupted one"
            )
        self.restored = None

    def ended(self, fault: EnvironmentFault | None) -> None:
        """Counts a dropped episode, or ends a row of them. Raises `EnvironmentFault` after too many in a row."""
        if fault is None:
            self.counters.faults_in_a_row = 0
        else:
            self.recorder.add_faults(1, str(fault))

    def evaluation_ended(self, fault: EnvironmentFault | None) -> None:
        """As `ended`, for the episodes of evaluations. Raises `Interrupted` if the run is to end."""
        self.ended(fault)
        self.check()

    def check(self) -> None:
        """Raises `Interrupted` if the run is to end."""
        if self.interrupted():
            raise Interrupted

    def learn_from_replay(self) -> Any:
        """Stores each training episode and takes the updates that are due; yields after each episode."""
        config, counters = self.config, self.counters
        policy = self.policy()
        stop = config.budget.total if config.budget.last_step is None else 2**31 - 1
        if self.done():
            return
        for episode in self.collect(policy, TRAIN, stop - counters.episode):
            then, before = (counters.episode, counters.env_steps), share_at(config.budget, counters)
            self.store(episode)
            counters.episode += 1
            self.recorder.add_returns(episode.total, 1)
            share = TrainingShare(before, share_at(config.budget, counters))
            steps = counters.env_steps - counters.random_steps
            self.act_with_current()
            number = updates_due(config.replay, 1, steps - episode.length, steps)
            for i in range(number):
                key = jax.random.fold_in(self.parts.update_key, counters.updates)
                its_share = TrainingShare(*(np.float32(share.at(step, number)) for step in (i - 1, i)))
                self.learner, metrics, _ = self.update(self.learner, self.replay.state, key, its_share)
                self.add_metrics(metrics)
            self.after(then)
            yield
            if self.done():
                return

    def learn_on_policy(self) -> Any:
        """Collects a rollout with fixed parameters, then updates on it; yields after each update."""
        config, counters, policy = self.config, self.counters, self.policy()
        if self.done():
            return
        seeds, start = environment_seeds(config.seed, TRAIN), counters.numbers[TRAIN]
        collector = RolloutCollector(self.parts.envs, policy, seeds, start, ended=self.ended)
        self.restore_collection(collector, policy, TRAIN)
        self.collecting = TRAIN, collector
        while not self.done():
            collected = collector.collect(host_slots(config))
            counters.numbers[TRAIN] = collector.upcoming
            then, before = (counters.episode, counters.env_steps), share_at(config.budget, counters)
            counters.env_steps += collected.steps
            counters.episode += len(collected.returns)
            share = TrainingShare(np.float32(before), np.float32(share_at(config.budget, counters)))
            tape, memory = jax.tree.map(jnp.asarray, (collected.tape, collected.memory))
            rollout = Rollout(tape, memory, self.behaviour)
            self.act_with_current()
            key = jax.random.fold_in(self.parts.update_key, counters.updates)
            self.learner, metrics, _ = self.update(self.learner, rollout, key, share)
            self.add_metrics(metrics)
            self.recorder.add_returns(sum(collected.returns), len(collected.returns))
            self.after(then)
            yield

    def policy(self) -> Policy:
        """The agent's policy, which acts with the learner's parameters at each step."""
        parts = self.parts
        policy = RecurrentPolicy(
            parts.agent.act,
            parts.network.initial_state(),
            self.config.collection.num_envs,
            params=lambda: self.learner.params if self.behaviour is None else self.behaviour,
            explore=self.explore,
            key=parts.act_key,
        )
        return TimedPolicy(policy, self.stopwatch)

    def explore(self, number: np.ndarray) -> np.ndarray:
        """How much the policy explores in training episodes with these numbers, (n,) → (n,) float32."""
        share = share_at(self.config.budget, self.counters)
        return np.asarray(exploration(self.config, self.parts.agent.traits, number, share), np.float32)

    def done(self) -> bool:
        """Whether the training budget is used up."""
        return self.config.budget.share_done(self.counters.episode, self.counters.env_steps) >= 1

    def after(self, then: tuple[int, int]) -> None:
        """Evaluates and saves if these are due; `then`: training episodes and environment steps before the update."""
        config, counters = self.config, self.counters
        saves = save_due(config, then, (counters.episode, counters.env_steps)) and not self.done()
        if self.behaviour is not None and not (saves or self.recorder.due() or self.done()):
            return  # the update goes on while the next rollout or episode is collected
        await_update(self.learner, self.stopwatch)
        self.evaluate_if_due()
        # Reading these costs no extra wait: the next action needs the updated parameters anyway.
        self.recorder.watch_divergence(self.learner.skipped, self.learner.divergence)
        if saves:
            self.save()

    def act_with_current(self) -> None:
        """With `overlap`, lets the policy act with the parameters of before the update that follows."""
        if self.behaviour is not None:
            await_update(self.learner, self.stopwatch)
            self.recorder.watch_divergence(self.learner.skipped, self.learner.divergence)
            self.behaviour = jax.tree.map(jnp.copy, self.learner.params)

    def evaluate_if_due(self) -> None:
        """Evaluates if an evaluation is due; in a resumed run, one may be due before the first episode."""
        if self.recorder.due():
            self.evaluate()
            self.recorder.report()

    def store(self, episode: Episode) -> None:
        """Stores an episode in the replay and counts its steps. Raises `ValueError` if it does not fit."""
        try:
            changed = self.replay.add(episode.tape, self.learner.params)
        except ValueError as error:
            raise ValueError(f"{error} (--buffer-size)") from error
        if changed:
            self.counters.bounds = list(self.replay.bounds)
            self.update = self._compile_update()
        self.counters.env_steps += episode.length

    def _compile_update(self) -> Callable[..., Any]:
        return timed_update(host_update(self.parts.agent, self.replay), self.stopwatch)

    def evaluate(self) -> None:
        """Evaluates and writes a row of metrics, and a row of sensitivities of the greedy episodes if one is due."""
        config, counters, parts = self.config, self.counters, self.parts
        seeds = environment_seeds(config.seed, EVALUATE, counters.episode)
        arguments = self.learner.params, config.evaluation.eval_episodes, seeds, self.evaluation_ended
        if self.profiles is None or counters.episode - self.profiles.episode < config.evaluation.sensitivity_every:
            evaluation = self.evaluator(*arguments)
        else:
            played = self.evaluator.play(*arguments)
            evaluation = Evaluations(Evaluation.of(played), self.evaluator.sampled(*arguments))
            found = sensitivities(
                parts.agent.network(self.learner.params), [episode.tape for episode in played], value_of
            )
            self.profiles.write(counters.episode, Profile.of(found))
        self.fetch()
        epsilon = newest_epsilon(config, parts.agent.traits, counters)
        spent = self.stopwatch.read()
        self.recorder.write_row(evaluation, epsilon, int(self.learner.skipped), lambda: self.learner.params, spent)

    def add_metrics(self, metrics: dict[str, jax.Array]) -> None:
        """Counts an update's gradient steps, and keeps its metrics on the device: means as sums over the steps."""
        steps = self.parts.agent.gradient_steps
        self.recent.append({name: leaf * steps if name in MEANS else leaf for name, leaf in metrics.items()})
        self.counters.updates += steps

    def fetch(self) -> None:
        """Moves the metrics of recent updates from the device to the counters, which checkpoints contain."""
        for metrics in jax.device_get(self.recent):
            self.recorder.add_updates(metrics, self.parts.agent.gradient_steps)
        self.recent = []

    def save(self) -> None:
        """Writes a checkpoint, and redraws the heatmap of sensitivities if there is one."""
        self.fetch()
        parts: dict[str, Any] = {"learner": self.learner}
        if self.behaviour is not None:
            parts["behaviour"] = self.behaviour
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
            rml = reward_memory_length(self.parts.envs.example.env)
            path = self.recorder.run_dir
            draw_heatmap(path / HEATMAP, read_log(path / SENSITIVITY), rml=rml, title=self.recorder.title)

    def stop(self) -> Outcome:
        """Writes a checkpoint; the outcome of an interrupted run."""
        self.save()
        return self.outcome(None)

    def outcome(self, finals: Evaluations | None) -> Outcome:
        """The outcome of the run so far."""
        return Outcome(finals, self.recorder.rows, self.recorder.run_dir, self.config)

    def close(self) -> None:
        """Closes files and environments."""
        self.recorder.close()
        if self.profiles is not None:
            self.profiles.close()
        self.parts.close()
