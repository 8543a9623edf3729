"""The compiled program of a run on device: collection, replay and updates as pure functions of the run's state."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from memoroids.acting.device_collection import (
    CollectedSlots,
    EnvStates,
    append_next_observation,
    collect_slots,
    start,
)
from memoroids.agents.base import Agent, TrainingShare, with_numbers
from memoroids.agents.rollout_batch import Rollout
from memoroids.envs.device import DeviceView
from memoroids.envs.spaces import blank_actions
from memoroids.memory.memoroid import State
from memoroids.replay import RingBuffer
from memoroids.runs.build import DeviceParts, make_agent, rollout_slots
from memoroids.runs.metrics import MEANS
from memoroids.runs.progress import Counters
from memoroids.runs.schedule import CHECKPOINTS, EVALUATIONS, exploration, share_trained, until_due, updates_due
from memoroids.runs.settings import TrainConfig
from memoroids.tape import Tape


class DeviceState(NamedTuple):
    """The state of a run on device: the learner, the environments, the replay, and counts of episodes and steps.

    `replay` is None for an agent without replay. `entered`: how many episodes have finished, spoiled ones left out.
    `env_steps`, `random_steps`: transitions in all episodes and in random ones. All three are int32 scalars.
    """

    learner: Any
    env_states: EnvStates
    replay: Any
    entered: jax.Array
    env_steps: jax.Array
    random_steps: jax.Array


CALL_SLOTS = 100_000
"""Slots that a call collects at most, so that progress is shown and an interruption is noticed."""
TOTALS = ("random", "episode", "random_steps", "skipped", "divergence")
"""Statistics of a chunk that are totals of the whole run; the others count what happened in the chunk."""


class Inputs(NamedTuple):
    """What tells one run from others that share its program.

    `act`, `update`: random key data for acting and for updates; counters of slots and updates are folded into them.
    `numbers`: the agent's settings in which these runs differ, see `memoroids.runs.shared_program`.
    """

    act: Any
    update: Any
    numbers: dict[str, Any]

    @classmethod
    def of(cls, parts: DeviceParts, numbers: dict[str, Any]) -> "Inputs":
        """The inputs of a run with these parts, on the host."""
        act, update = jax.device_get([jax.random.key_data(key) for key in (parts.act_key, parts.update_key)])
        return cls(act, update, numbers)

    def keys(self) -> tuple[jax.Array, jax.Array]:
        """The two keys as JAX keys."""
        return jax.random.wrap_key_data(self.act), jax.random.wrap_key_data(self.update)


@dataclass(frozen=True, eq=False)
class Program:
    """The constants of a run on device, the same for all its seeds: a seed differs only in its state and its inputs.

    `slots`: what each environment collects between updates. `whole_episodes`: whether these are exactly one episode.
    `axis`: the name of the mapped axis over seeds, if there is one. `place_batch`: divides a batch over
    devices.
    """

    config: TrainConfig
    view: DeviceView
    agent: Agent
    network: Any
    rings: RingBuffer | None
    initial_memory: State
    slots: int
    whole_episodes: bool
    axis: str | None
    place_batch: Callable[[Any], Any]

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        parts: DeviceParts,
        *,
        axis: str | None = None,
        place_batch: Callable[[Any], Any] = lambda batch: batch,
    ) -> "Program":
        """The program of a run with these parts."""
        view, slots = parts.view, rollout_slots(config, parts.view)
        whole_episodes = view.fixed_length and slots == view.max_length + 1
        initial = parts.network.initial_state()
        agent, network = parts.agent, parts.network
        return cls(config, view, agent, network, parts.rings, initial, slots, whole_episodes, axis, place_batch)

    def learning_with(self, numbers: dict[str, Any]) -> "Program":
        """This program with an agent that learns with these numbers in place of its settings."""
        if not numbers:
            return self
        agent = make_agent(self.config, with_numbers(self.config.agent, numbers), self.network)
        return dataclasses.replace(self, agent=agent)

    def init(self, learner: Any, inputs: Inputs) -> DeviceState:
        """The state before the first slot."""
        env_states = start(self.view, self.initial_memory, self.config.collection.num_envs, inputs.keys()[0])
        replay = self.rings and self.rings.init(_example(env_states, self.view))
        # Distinct arrays: donated buffers may not alias each other.
        counts = (jnp.zeros((), jnp.int32) for _ in range(3))
        return DeviceState(learner, env_states, replay, *counts)

    def chunks_until(self, counters: Counters) -> int:
        """How many chunks a call of `advance` may take from here: until an evaluation, a checkpoint or the end is due.

        Where chunks are not whole episodes this cannot be told beforehand, and a call takes one.
        """
        if not self.whole_episodes:
            return 1
        config, num_envs = self.config, self.config.collection.num_envs
        budget, random = config.budget, config.budget.random_episodes - counters.random
        events = [
            until_due(config.evaluation.eval_every, EVALUATIONS, budget, counters),
            until_due(config.checkpoint.checkpoint_every, CHECKPOINTS, budget, counters),
        ]
        if budget.last_step is None:
            events.append((budget.total - counters.episode, False))
        else:
            events.append((budget.total - counters.env_steps, True))
        due = [-(-far // self.view.max_length) if in_steps else random + far for far, in_steps in events]
        return max(1, min(-(-min(due) // num_envs), CALL_SLOTS // (num_envs * self.slots)))

    def advance(self, state: DeviceState, inputs: Inputs, chunks: int) -> tuple[DeviceState, dict[str, Any]]:
        """Collects and learns `chunks` times; returns the new state and, for the recorder, what happened."""
        program = self.learning_with(inputs.numbers)
        if not self.whole_episodes:
            return _chunk(program, state, inputs)

        def chunk(_: jax.Array, carry: tuple[DeviceState, dict[str, Any]]) -> tuple[DeviceState, dict[str, Any]]:
            state, stats = _chunk(program, carry[0], inputs)
            before = carry[1]["happened"]
            # Totals are those of the last chunk; the other statistics are counts per chunk and are summed.
            happened = {
                name: some if name in TOTALS else before[name] + some for name, some in stats["happened"].items()
            }
            return state, {"happened": happened, "sums": jax.tree.map(jnp.add, carry[1]["sums"], stats["sums"])}

        shapes = jax.eval_shape(partial(_chunk, program), state, inputs)[1]
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return lax.fori_loop(0, chunks, chunk, (state, nothing))


def _chunk(program: Program, state: DeviceState, inputs: Inputs) -> tuple[DeviceState, dict[str, Any]]:
    """Collects `slots` slots per environment with the current parameters, then learns from them or from replay."""
    before = state.env_states
    # Acts as at the end of training in the last chunk, the one that uses up the budget.
    share_ahead = _share_trained(program, state, ahead=program.config.collection.num_envs * program.slots)
    act_key, update_key = inputs.keys()
    env_states, collected = collect_slots(
        program.view,
        program.agent.act,
        state.learner.params,
        before,
        act_key,
        program.slots,
        explore=lambda number: _explore(program, number, share_ahead),
        axis=program.axis,
    )
    tape = collected.tape
    entered = state.entered + jnp.sum(tape.final, dtype=jnp.int32)
    trained = _trained(program, entered) - _trained(program, state.entered)
    random = tape.transition & (collected.number < program.config.budget.random_episodes)
    share_before, trained_before = _share_trained(program, state), state.env_steps - state.random_steps
    state = state._replace(
        env_states=env_states,
        entered=entered,
        env_steps=state.env_steps + jnp.sum(tape.transition, dtype=jnp.int32),
        random_steps=state.random_steps + jnp.sum(random, dtype=jnp.int32),
    )
    share = TrainingShare(share_before, _share_trained(program, state))
    if program.rings is not None:
        steps = state.env_steps - state.random_steps
        number = updates_due(program.config.replay, trained, trained_before, steps)
        number = jnp.where(entered > 0, number, 0)  # before the first whole episode there is nothing to learn from
        updates = number * program.agent.gradient_steps
        state = state._replace(replay=program.rings.add(state.replay, tape))
        state, sums = _learn_from_replay(program, program.rings, state, number, share, update_key)
        sums = _over_steps(program, sums)
    else:
        updates = jnp.full((), program.agent.gradient_steps, jnp.int32)
        done = state.learner.updates + state.learner.skipped
        batch = program.place_batch(Rollout(append_next_observation(tape, env_states), before.memory))
        learner, metrics, _ = program.agent.update(state.learner, batch, jax.random.fold_in(update_key, done), share)
        state = state._replace(learner=learner)
        sums = _over_steps(program, metrics)
    return state, {"happened": _happened(program, state, collected, updates), "sums": sums}


def _over_steps(program: Program, metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics of updates, where those that are means over an update's gradient steps become sums over them."""
    steps = program.agent.gradient_steps
    return {name: steps * leaf if name in MEANS else leaf for name, leaf in metrics.items()}


def _explore(program: Program, number: jax.Array, share: jax.Array) -> jax.Array:
    """How much to explore in episodes with these numbers, (num_envs,) → (num_envs,) float32; 1 in random episodes."""
    config = program.config
    trained = (number - config.budget.random_episodes).astype(jnp.float32)
    explored = exploration(config, program.agent.traits, trained, share)
    return jnp.where(trained < 0, 1.0, explored).astype(jnp.float32)


def _trained(program: Program, entered: jax.Array) -> jax.Array:
    """How many of the `entered` finished episodes are training episodes."""
    return jnp.maximum(entered - program.config.budget.random_episodes, 0)


def _share_trained(program: Program, state: DeviceState, ahead: int = 0) -> jax.Array:
    episode = _trained(program, state.entered)
    return share_trained(program.config.budget, episode, state.env_steps, state.random_steps, ahead)


def _learn_from_replay(
    program: Program,
    rings: RingBuffer,
    state: DeviceState,
    updates: jax.Array,
    share: TrainingShare,
    key: jax.Array,
) -> tuple[DeviceState, dict[str, Any]]:
    """Takes `updates` updates on samples of the replay; returns the state and the sums of their metrics.

    `share`: of the training, before the first update and after the last.
    """
    agent, axis, replay = program.agent, program.axis, state.replay
    done = state.learner.updates + state.learner.skipped

    # The loop carries only the priorities of the replay, since under `vmap` it copies its carry in every iteration.
    def update(i: jax.Array, carry: Any) -> Any:
        learner, (priority, largest), sums = carry
        now = replay._replace(priority=priority, largest=largest)
        drawn_key = jax.random.fold_in(key, done + i)
        sample = rings.sample(now, drawn_key)
        its_share = TrainingShare(share.at(i - 1, updates), share.at(i, updates))
        learner, metrics, td_errors = agent.update(learner, program.place_batch(sample), drawn_key, its_share)
        now = rings.update_priorities(now, sample.drawn, td_errors)
        after = learner, (now.priority, now.largest), jax.tree.map(jnp.add, sums, metrics)
        if axis is None:
            return after
        return jax.tree.map(lambda new, old: jnp.where(i < updates, new, old), after, carry)

    sample = jax.eval_shape(rings.sample, replay, key)
    metrics = jax.eval_shape(agent.update, state.learner, sample, key, share)[1]
    sums = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in metrics.items()}
    # The trip count must not be mapped, or the loop would select between old and new carry in every iteration.
    trip_count = updates if axis is None else lax.pmax(updates, axis)
    initial = state.learner, (replay.priority, replay.largest), sums
    learner, (priority, largest), sums = lax.fori_loop(0, trip_count, update, initial)
    return state._replace(learner=learner, replay=replay._replace(priority=priority, largest=largest)), sums


def _happened(program: Program, state: DeviceState, collected: CollectedSlots, updates: jax.Array) -> dict[str, Any]:
    """Statistics of a chunk: counts, the sum of the returns of training episodes, faults and divergence."""
    tape, random = collected.tape, program.config.budget.random_episodes
    counted = tape.final & (collected.number >= random)
    total = partial(jnp.sum, dtype=jnp.int32)
    return {
        "random": jnp.minimum(state.entered, random),
        "episode": _trained(program, state.entered),
        "env_steps": total(tape.transition),
        "random_steps": state.random_steps,
        "updates": updates,
        "returns": jnp.sum(jnp.where(counted, collected.total, 0)),
        "returned": total(counted),
        "entered": total(tape.final),
        "faults": total(collected.faults),
        "skipped": state.learner.skipped,
        "divergence": state.learner.divergence,
    }


def _example(env_states: EnvStates, view: DeviceView) -> Tape:
    """A tape of one slot, with the shapes and dtypes of what the environments write."""
    flag = jnp.zeros(1, bool)
    return Tape(
        observation=env_states.observation[:1],
        begin=flag,
        action=jnp.asarray(blank_actions(view.actions, 1)),
        reward=jnp.zeros(1),
        terminated=flag,
        truncated=flag,
        transition=flag,
    )
