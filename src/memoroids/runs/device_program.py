"""The compiled program of a run on device: collection, replay and updates as pure functions of the run's state."""

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
from memoroids.agents.base import Agent
from memoroids.agents.rollout_batch import Rollout
from memoroids.envs.device import DeviceView
from memoroids.envs.spaces import blank_actions
from memoroids.memory.memoroid import State
from memoroids.replay import RingBuffer
from memoroids.runs.build import DeviceParts, rollout_slots
from memoroids.runs.metrics import MEANS
from memoroids.runs.schedule import exploration
from memoroids.runs.settings import TrainConfig
from memoroids.tape import Tape


class DeviceState(NamedTuple):
    """The state of a run on device: the learner, the environments, the replay, and how many episodes have finished.

    `replay` is None for an agent without replay. `entered`: an int32 scalar, spoiled episodes left out.
    """

    learner: Any
    env_states: EnvStates
    replay: Any
    entered: jax.Array


class Keys(NamedTuple):
    """Random key data of one run for acting and for updates; counters of slots and updates are folded into them."""

    act: Any
    update: Any

    def wrapped(self) -> tuple[jax.Array, jax.Array]:
        """The two as JAX keys."""
        return jax.random.wrap_key_data(self.act), jax.random.wrap_key_data(self.update)


@dataclass(frozen=True, eq=False)
class Program:
    """The constants of a run on device, the same for all its seeds: a seed differs only in its state and its keys.

    `slots`: what each environment collects between updates. `chunks`: how many times `advance` collects so many slots
    and learns. `axis`: the name of the mapped axis over seeds, if there is one. `place_batch`: divides a batch over
    devices.
    """

    config: TrainConfig
    view: DeviceView
    agent: Agent
    rings: RingBuffer | None
    initial_memory: State
    slots: int
    chunks: int
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
        """The program of a run: `advance` runs to the next evaluation if chunks are whole episodes, else one chunk."""
        view, slots = parts.view, rollout_slots(config, parts.view)
        aligned = view.fixed_length and slots == view.max_length + 1
        chunks = max(1, config.evaluation.eval_every // config.collection.num_envs) if aligned else 1
        initial = parts.network.initial_state()
        return cls(config, view, parts.agent, parts.rings, initial, slots, chunks, axis, place_batch)

    def init(self, learner: Any, keys: Keys) -> DeviceState:
        """The state before the first slot."""
        env_states = start(self.view, self.initial_memory, self.config.collection.num_envs, keys.wrapped()[0])
        replay = self.rings and self.rings.init(_example(env_states, self.view))
        return DeviceState(learner, env_states, replay, jnp.zeros((), jnp.int32))

    def advance(self, state: DeviceState, keys: Keys) -> tuple[DeviceState, dict[str, Any]]:
        """Collects and learns `chunks` times; returns the new state and, for the recorder, what happened."""
        if self.chunks == 1:
            return _chunk(self, state, keys)
        state, stats = lax.scan(lambda state, _: _chunk(self, state, keys), state, length=self.chunks)
        # Totals are those of the last chunk; the other statistics are counts per chunk and are summed.
        totals = ("random", "episode", "skipped", "divergence")
        happened = {
            name: jax.tree.map(lambda leaf: leaf[-1], some) if name in totals else jnp.sum(some, 0)
            for name, some in stats["happened"].items()
        }
        return state, {"happened": happened, "sums": jax.tree.map(lambda leaf: jnp.sum(leaf, 0), stats["sums"])}


def _chunk(program: Program, state: DeviceState, keys: Keys) -> tuple[DeviceState, dict[str, Any]]:
    """Collects `slots` slots per environment with the current parameters, then learns from them or from replay."""
    before = state.env_states
    act_key, update_key = keys.wrapped()
    env_states, collected = collect_slots(
        program.view,
        program.agent.act,
        state.learner.params,
        before,
        act_key,
        program.slots,
        explore=lambda number: _explore(program, number, before.slot),
        axis=program.axis,
    )
    tape = collected.tape
    entered = state.entered + jnp.sum(tape.final, dtype=jnp.int32)
    trained = _trained(program, entered) - _trained(program, state.entered)
    state = state._replace(env_states=env_states, entered=entered)
    if program.rings is not None:
        number = trained * program.config.replay.updates_per_episode
        updates = number * program.agent.gradient_steps
        state = state._replace(replay=program.rings.add(state.replay, tape))
        state, sums = _learn_from_replay(program, program.rings, state, number, update_key)
        sums = _over_steps(program, sums)
    else:
        updates = jnp.full((), program.agent.gradient_steps, jnp.int32)
        done = state.learner.updates + state.learner.skipped
        batch = program.place_batch(Rollout(append_next_observation(tape, env_states), before.memory))
        learner, metrics, _ = program.agent.update(state.learner, batch, jax.random.fold_in(update_key, done))
        state = state._replace(learner=learner)
        sums = _over_steps(program, metrics)
    return state, {"happened": _happened(program, state, collected, updates), "sums": sums}


def _over_steps(program: Program, metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics of updates, where those that are means over an update's gradient steps become sums over them."""
    steps = program.agent.gradient_steps
    return {name: steps * leaf if name in MEANS else leaf for name, leaf in metrics.items()}


def _explore(program: Program, number: jax.Array, slot: jax.Array) -> jax.Array:
    """How much to explore in episodes with these numbers, (num_envs,) → (num_envs,) float32; 1 in random episodes."""
    config = program.config
    trained = (number - config.budget.random_episodes).astype(jnp.float32)
    steps, num_envs = config.budget.train_steps, config.collection.num_envs
    steps_share = None if steps is None else jnp.minimum(slot * (num_envs / steps), 1.0)
    explored = exploration(config, program.agent.traits, trained, steps_share)
    return jnp.where(trained < 0, 1.0, explored).astype(jnp.float32)


def _trained(program: Program, entered: jax.Array) -> jax.Array:
    """How many of the `entered` finished episodes count as training episodes."""
    budget = program.config.budget
    after = jnp.maximum(entered - budget.random_episodes, 0)
    return after if budget.train_steps is not None else jnp.minimum(after, budget.train_episodes)


def _learn_from_replay(
    program: Program, rings: RingBuffer, state: DeviceState, updates: jax.Array, key: jax.Array
) -> tuple[DeviceState, dict[str, Any]]:
    """Takes `updates` updates on samples of the replay; returns the state and the sums of their metrics."""
    agent, axis, replay = program.agent, program.axis, state.replay
    done = state.learner.updates + state.learner.skipped

    # The loop carries only the priorities of the replay, since under `vmap` it copies its carry in every iteration.
    def update(i: jax.Array, carry: Any) -> Any:
        learner, (priority, largest), sums = carry
        now = replay._replace(priority=priority, largest=largest)
        drawn_key = jax.random.fold_in(key, done + i)
        sample = rings.sample(now, drawn_key)
        learner, metrics, td_errors = agent.update(learner, program.place_batch(sample), drawn_key)
        now = rings.update_priorities(now, sample.drawn, td_errors)
        after = learner, (now.priority, now.largest), jax.tree.map(jnp.add, sums, metrics)
        if axis is None:
            return after
        return jax.tree.map(lambda new, old: jnp.where(i < updates, new, old), after, carry)

    sample = jax.eval_shape(rings.sample, replay, key)
    metrics = jax.eval_shape(agent.update, state.learner, sample, key)[1]
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
