"""Training in one compiled program: collecting, storing, drawing and updating, for one run or many seeds together."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memoroids.runs import checkpoint
from memoroids.acting.device_collection import EnvStates, collect_slots, start, append_next_observation
from memoroids.acting.evaluation import DeviceEvaluator, Evaluation
from memoroids.agents.rollout_batch import Rollout
from memoroids.runs.settings import TrainConfig
from memoroids.envs import EnvironmentFault
from memoroids.envs.spaces import Continuous
from memoroids.runs.metrics import MEANS
from memoroids.runs.build import EVALUATE, FINAL, Parts, environment_seeds, rollout_slots
from memoroids.runs.placement import Placement
from memoroids.runs.recorder import Outcome, Recorder, TrainingError
from memoroids.replay import RingBuffer
from memoroids.tape import Tape


class DeviceState(NamedTuple):
    """All that changes in a run, on device: the learner, the copies under way, the replay, episodes entered so far.

    `replay` is None where the algorithm learns without.
    """

    learner: Any
    env_states: EnvStates
    replay: Any
    entered: jax.Array


class Keys(NamedTuple):
    """Key data of one run, the same throughout: what is drawn follows from them and from how much was drawn before."""

    act: Any
    update: Any

    def wrapped(self) -> tuple[jax.Array, jax.Array]:
        """As keys."""
        return jax.random.wrap_key_data(self.act), jax.random.wrap_key_data(self.update)


class Program(NamedTuple):
    """A run's pure functions, made by `program`: `init(learner, keys)` and `advance(state, keys)`."""

    init: Callable[[Any, Keys], DeviceState]
    advance: Callable[[DeviceState, Keys], tuple[DeviceState, dict[str, jax.Array]]]


def program(
    config: TrainConfig,
    parts: Parts,
    *,
    axis: str | None = None,
    placed: Callable[[Any], Any] = lambda batch: batch,
) -> Program:
    """A run as pure functions; the seed enters through the learner and the keys alone.

    `advance` collects, stores and learns, from one evaluation to the next where episodes have one length, else once;
    it returns sums over what happened. `axis` names the mapped axis of runs, `placed` lays a batch over devices.
    """
    view, algorithm, buffer = parts.view, parts.algorithm, parts.rings
    assert view is not None
    learn: Any = algorithm.update  # from a sample or from a rollout
    initial, slots = parts.network.initial_state(), rollout_slots(config, view)
    aligned = view.fixed_length and slots == view.max_length + 1
    chunks = max(1, config.eval_every // config.num_envs) if aligned else 1

    def init(learner: Any, keys: Keys) -> DeviceState:
        env_states = start(view, initial, config.num_envs, keys.wrapped()[0])
        return DeviceState(learner, env_states, buffer and buffer.init(_example(env_states, view)), jnp.zeros((), jnp.int32))

    def explore(number: jax.Array, slot: jax.Array) -> jax.Array:
        if config.algorithm == "ppo":
            return jnp.ones(number.shape)
        trained = (number - config.random_episodes).astype(jnp.float32)
        if config.train_steps is None:
            share = jnp.clip(trained / max(config.train_episodes - 1, 1), 0, 1)
        else:
            share = jnp.minimum(slot * (config.num_envs / config.train_steps), 1.0)
        return jnp.where(trained < 0, 1.0, config.epsilon_at(share)).astype(jnp.float32)

    def trained(entered: jax.Array) -> jax.Array:
        after = jnp.maximum(entered - config.random_episodes, 0)
        return after if config.train_steps is not None else jnp.minimum(after, config.train_episodes)

    def learn_from_replay(
        state: DeviceState, buffer: RingBuffer, number: jax.Array, key: jax.Array
    ) -> tuple[DeviceState, dict[str, Any]]:
        done = state.learner.updates + state.learner.skipped
        replay = state.replay

        # Of the replay the loop carries priorities alone: where it is mapped, it copies what it carries at every turn.
        def update(i: jax.Array, carry: Any) -> Any:
            learner, (priority, largest), sums = carry
            rings = replay._replace(priority=priority, largest=largest)
            sample = buffer.sample(rings, jax.random.fold_in(key, done + i))
            learner, metrics, error = learn(learner, placed(sample), config.batch_size)
            rings = buffer.update_priorities(rings, sample.drawn, error)
            after = learner, (rings.priority, rings.largest), jax.tree.map(jnp.add, sums, metrics)
            if axis is None:
                return after
            return jax.tree.map(lambda new, old: jnp.where(i < number, new, old), after, carry)

        sample = jax.eval_shape(buffer.sample, replay, key)
        metrics = jax.eval_shape(learn, state.learner, sample, config.batch_size)[1]
        sums = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in metrics.items()}
        # One trip count for all runs of the mapped axis, or the loop would select what it carries at every turn.
        most = number if axis is None else lax.pmax(number, axis)
        begun = state.learner, (replay.priority, replay.largest), sums
        learner, (priority, largest), sums = lax.fori_loop(0, most, update, begun)
        return state._replace(learner=learner, replay=replay._replace(priority=priority, largest=largest)), sums

    def chunk(state: DeviceState, keys: Keys) -> tuple[DeviceState, dict[str, Any]]:
        before = state.env_states
        act_key, update_key = keys.wrapped()
        env_states, collected = collect_slots(
            view,
            algorithm.act,
            state.learner.params,
            before,
            act_key,
            slots,
            explore=lambda number: explore(number, before.slot),
            axis=axis,
        )
        tape = collected.tape
        entered = state.entered + jnp.sum(tape.final, dtype=jnp.int32)
        new = trained(entered) - trained(state.entered)
        counted = tape.final & (collected.number >= config.random_episodes)
        state = state._replace(env_states=env_states, entered=entered)
        if buffer is not None:
            number = new * config.updates_per_episode
            state = state._replace(replay=buffer.add(state.replay, tape))
            state, sums = learn_from_replay(state, buffer, number, update_key)
        else:
            number = jnp.full((), config.rollout_updates, jnp.int32)
            done = state.learner.updates + state.learner.skipped
            batch = placed(Rollout(append_next_observation(tape, env_states), before.memory))
            learner, metrics = learn(state.learner, batch, jax.random.fold_in(update_key, done))
            state = state._replace(learner=learner)
            sums = {name: number * leaf if name in MEANS else leaf for name, leaf in metrics.items()}
        happened = {
            "random": jnp.minimum(entered, config.random_episodes),
            "episode": trained(entered),
            "env_steps": jnp.sum(tape.transition, dtype=jnp.int32),
            "updates": number,
            "returns": jnp.sum(jnp.where(counted, collected.total, 0)),
            "returned": jnp.sum(counted, dtype=jnp.int32),
            "entered": jnp.sum(tape.final, dtype=jnp.int32),
            "faults": jnp.sum(collected.faults, dtype=jnp.int32),
            "skipped": state.learner.skipped,
            "divergence": state.learner.divergence,
        }
        return state, {"happened": happened, "sums": sums}

    def advance(state: DeviceState, keys: Keys) -> tuple[DeviceState, dict[str, Any]]:
        if chunks == 1:
            return chunk(state, keys)
        state, stats = lax.scan(lambda state, _: chunk(state, keys), state, length=chunks)
        # Standings are the last chunk's, the rest adds up.
        standing = ("random", "episode", "skipped", "divergence")
        happened = {
            name: jax.tree.map(lambda leaf: leaf[-1], some) if name in standing else jnp.sum(some, 0)
            for name, some in stats["happened"].items()
        }
        return state, {"happened": happened, "sums": jax.tree.map(lambda leaf: jnp.sum(leaf, 0), stats["sums"])}

    return Program(init, advance)


def _example(env_states: EnvStates, view: Any) -> Tape:
    """A tape of one slot with the trailing shapes and dtypes that the copies write."""
    several = (view.actions.size,) if isinstance(view.actions, Continuous) else ()
    flag = jnp.zeros(1, bool)
    return Tape(
        observation=env_states.observation[:1],
        begin=flag,
        action=jnp.zeros((1, *several), jnp.float32 if several else jnp.int32),
        reward=jnp.zeros(1),
        terminated=flag,
        truncated=flag,
        transition=flag,
    )


class DeviceRun:
    """One run, or several seeds of it, as they advance; each seed has its own record."""

    def __init__(
        self,
        config: TrainConfig,
        placement: Placement,
        parts: Sequence[Parts],
        recorders: Sequence[Recorder],
        learners: Sequence[Any],
    ):
        self.config, self.placement, self.parts, self.recorders = config, placement, parts, recorders
        evaluator = parts[0].evaluator
        assert isinstance(evaluator, DeviceEvaluator)
        self.evaluator = evaluator
        made = program(config, parts[0], axis=self.placement.axis, placed=self.placement.batch)
        keys = [Keys(*jax.device_get([jax.random.key_data(k) for k in (p.act_key, p.update_key)])) for p in parts]
        self.states, self.keys = self.placement.place_states(made.init, list(learners), keys)
        self.advance = self.placement.compile(made.advance, self.states)
        self.played = self.placement.compile_evaluation(evaluator.played)
        self.finals: dict[int, Evaluation] = {}

    def restore(self, paths: Sequence[Any]) -> None:
        """Takes up the rest of each seed's state from its checkpoint; its learner is there from the start.

        A seed without one begins. Seeds may stand at different points: a run may be killed between their checkpoints.
        """
        if all(path is None for path in paths):
            return
        taken = []
        for seed, path in enumerate(paths):
            like = self.placement.state(self.states, seed)
            if path is None:
                taken.append(like)
                continue
            kept = {name: part for name, part in like._asdict().items() if name != "learner" and part is not None}
            taken.append(like._replace(**{name: checkpoint.restore(path, name, part) for name, part in kept.items()}))
        self.states = self.placement.restore_placement(taken, self.states)

    def run(self, interrupted: Callable[[], bool]) -> Iterator[None]:
        """Advances to the end, or until `interrupted`; yields whenever something can be shown."""
        yield
        for seed in range(len(self.recorders)):
            if self.done(seed):  # before it was taken up again
                self.finish(self.group_of(seed), seed)
        for group in range(len(self.states)):  # a run may have ended before it could
            self.evaluate(group, [seed for seed in self.seeds_of(group) if self.recorders[seed].due()])
        while open_groups := [g for g in range(len(self.states)) if any(not self.done(s) for s in self.seeds_of(g))]:
            # All are dispatched before any result is waited for, so that several devices work at once.
            results = {}
            for group in open_groups:
                self.states[group], results[group] = self.advance(self.states[group], self.keys[group])
            # Every state has advanced, so every one is accounted for before a fault of one ends the run.
            faults = [fault for group, stats in results.items() for fault in self.account(group, stats)]
            if faults:
                raise faults[0]
            yield
            if interrupted():
                self.save_open()
                return

    def save_open(self) -> None:
        """Writes a checkpoint of each seed that is not done."""
        for seed in range(len(self.recorders)):
            if seed not in self.finals:
                self.save(seed)

    def group_of(self, seed: int) -> int:
        """The call that advances a seed."""
        return next(group for group in range(len(self.states)) if seed in self.seeds_of(group))

    def seeds_of(self, group: int) -> range:
        """The seeds that one call advances."""
        return self.placement.seeds_of(group)

    def done(self, seed: int) -> bool:
        """Whether a seed's training is over."""
        counters = self.recorders[seed].counters
        return self.config.share_done(counters.episode, counters.env_steps) >= 1

    def account(self, group: int, stats: Any) -> list[EnvironmentFault | TrainingError]:
        """Adds what a call did to its seeds' records; evaluates and saves those that are due.

        **Returns:** what forbids to go on, of each seed that has something of the kind.
        """
        config = self.config
        save, faults, checks = [], [], []
        for seed, mine in zip(self.seeds_of(group), self.placement.fetch(stats), strict=True):
            if self.done(seed):
                continue
            recorder, happened = self.recorders[seed], mine["happened"]
            counters = recorder.counters
            before = counters.episode
            counters.random, counters.episode = int(happened["random"]), int(happened["episode"])
            counters.env_steps += int(happened["env_steps"])
            counters.updates += int(happened["updates"])
            if happened["updates"]:
                recorder.add_updates(mine["sums"], int(happened["updates"]))
            recorder.add_returns(float(happened["returns"]), int(happened["returned"]))
            if counters.episode // config.checkpoint_every > before // config.checkpoint_every or self.done(seed):
                save.append(seed)
            number, since = int(happened["faults"]), bool(happened["entered"])
            if number:
                checks.append(lambda seed=seed, number=number, since=since: self.fault(seed, number, since, "episodes"))
            elif since:
                counters.faults_in_a_row = 0
            checks.append(partial(recorder.watch_divergence, happened["skipped"], happened["divergence"]))
        due = [seed for seed in self.seeds_of(group) if self.recorders[seed].due()]
        for check in (partial(self.evaluate, group, due), *checks):
            try:
                check()
            except (EnvironmentFault, TrainingError) as fault:
                faults.append(fault)
        for seed in save if not faults else []:
            self.save(seed)
            if self.done(seed):
                try:
                    self.finish(group, seed)
                except EnvironmentFault as fault:
                    faults.append(fault)
        return faults

    def fault(self, seed: int, number: int, since: bool, what: str) -> None:
        """Counts episodes that their environment spoiled."""
        fault = f"{self.config.env} showed or paid something that is not finite in {number} {what}"
        self.recorders[seed].add_faults(number, fault, since=since)

    def evaluate(self, group: int, due: list[int]) -> None:
        """A row for each of the seeds that are due."""
        if not due:
            return
        found = self.evaluations(group, self.config.eval_episodes, EVALUATE)
        for seed in due:
            # What the learner has skipped is read where it lies: there is a row to be written in any case.
            skipped = int(self.placement.state([state.learner.skipped for state in self.states], seed))
            self.recorders[seed].write_row(
                found[seed].mean, self.epsilon(seed), skipped, lambda seed=seed: self.params(seed)
            )

    def evaluations(self, group: int, episodes: int, stream: int) -> dict[int, Evaluation]:
        """Greedy episodes of each seed of a group."""
        seeds = []
        for seed in self.seeds_of(group):
            index = (self.recorders[seed].counters.episode,) if stream == EVALUATE else ()
            seed_of = environment_seeds(self.recorders[seed].config.seed, stream, *index)
            seeds.append(self.evaluator.seeds(episodes, seed_of))
        blocks = [
            self.placement.fetch(self.played(self.states[group].learner.params, self.placement.stack_inputs(block)))
            for block in zip(*seeds, strict=True)
        ]
        out = {}
        for i, seed in enumerate(self.seeds_of(group)):
            columns = zip(*(block[i] for block in blocks), strict=True)
            returns, lengths = (np.concatenate(column)[:episodes] for column in columns)
            whole = np.isfinite(returns)
            if faults := int(np.sum(~whole)):
                self.fault(seed, faults, bool(whole.any()), "greedy episodes")
                if not whole.any():
                    raise EnvironmentFault(
                        f"{self.config.env} showed or paid nothing finite in {faults} greedy episodes"
                    )
            out[seed] = Evaluation(returns[whole], lengths[whole])
        return out

    def params(self, seed: int) -> Any:
        """A seed's parameters."""
        return self.placement.state([state.learner.params for state in self.states], seed)

    def finish(self, group: int, seed: int) -> None:
        """The evaluation at the end of a seed's run, whose checkpoint does not know of it, and the summary."""
        self.finals[seed] = self.evaluations(group, self.config.final_episodes, FINAL)[seed]
        self.recorders[seed].finish(self.finals[seed])

    def epsilon(self, seed: int) -> float:
        """The share of random actions of the newest training episodes."""
        config, counters = self.config, self.recorders[seed].counters
        if config.algorithm == "ppo":
            return 0.0
        return config.epsilon_at(config.share_done(counters.episode, counters.env_steps))

    def save(self, seed: int) -> None:
        """Writes a seed's checkpoint: everything that its run goes on from."""
        state = self.placement.state(self.states, seed)
        if not self.placement.first:
            return
        self.recorders[seed].save({name: leaf for name, leaf in state._asdict().items() if leaf is not None})

    def outcomes(self) -> list[Outcome]:
        """How each seed's run ended."""
        return [Outcome(self.finals.get(i), recorder.rows, recorder.run_dir) for i, recorder in enumerate(self.recorders)]

    def close(self) -> None:
        """Closes the records' files."""
        for recorder in self.recorders:
            recorder.close()
