"""Rollouts cut out of whole lives, with ragged episodes, and slow loops over one episode at a time."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from memoroids.agents.rollout_batch import Rollout
from memoroids.envs.spaces import Continuous, Factored
from memoroids.tape import concatenate, episode, pad

OBSERVATION, ACTIONS, WIDTH, SLOTS = 3, 4, 8, 8
BOX = Continuous(2, (-1.0, -2.0), (1.0, 4.0))
# Nearly all the time of these tests is compilation.
QUICKLY = {"xla_backend_optimization_level": 0}
# Of each row, episodes (transitions, whether terminated, whether truncated), and where in them the chunk starts.
LIVES = (
    # An unfinished head, a termination, a truncation right before the chunk ends: its final slot follows.
    ([(5, True, False), (4, False, True)], 2),
    # Whole episodes from slot 0, one with both flags; what follows the chunk is another episode's begin: padding.
    ([(2, False, True), (4, True, True), (3, True, False)], 0),
    # One episode that neither begins nor ends in the chunk.
    ([(20, True, False)], 7),
    # The final slot of an episode whose last transition was in the chunk before; an unfinished tail.
    ([(3, True, False), (1, True, False), (1, False, True), (9, True, False)], 3),
)


def life(row, actions):
    """All slots of one row's episodes, NumPy-backed."""
    rng, tapes = np.random.default_rng(row), []
    for length, terminated, truncated in LIVES[row][0]:
        action = rng.integers(ACTIONS, size=length).astype(np.int32)
        if isinstance(actions, Continuous):
            action = rng.normal(size=(length, actions.size)).astype(np.float32)
        if isinstance(actions, Factored):
            action = rng.integers(actions.sizes, size=(length, len(actions.sizes))).astype(np.int32)
        observation = rng.normal(size=(length + 1, OBSERVATION)).astype(np.float32)
        tape = episode(observation, action, 3 * rng.normal(size=length), terminated, truncated)
        tape.truncated[length - 1] = truncated  # the collector leaves both flags to be told apart by their users
        tapes.append(tape)
    return concatenate(tapes)


def cut(tape, first, slots=SLOTS):
    """A chunk as it is collected: `slots` slots, and one more for the observation that follows or padding."""
    chunk = jax.tree.map(lambda leaf: leaf[first : first + slots + 1].copy(), tape)
    if chunk.slots == slots or chunk.begin[slots]:
        return pad(jax.tree.map(lambda leaf: leaf[:slots], chunk), slots + 1)
    for leaf in (chunk.action, chunk.reward, chunk.terminated, chunk.truncated, chunk.transition):
        leaf[slots] = 0
    return chunk


def walker(network):
    """`walk(params, observation, begin, memory)`: outputs and states of steps through one stretch of an episode.

    `observation` (SLOTS + 1, …); `begin`, of the first of them alone. Compiled once: shorter stretches go on with more.
    """
    static = eqx.filter(network, eqx.is_inexact_array, inverse=True)

    @jax.jit
    def walk(params, observation, begin, memory):
        def step(memory, inputs):
            out, memory = eqx.combine(params, static).step(*inputs, memory)
            return memory, (out, memory)

        return jax.lax.scan(step, memory, (observation, begin & (jnp.arange(len(observation)) == 0)))[1]

    return walk


def ragged(network, actions=ACTIONS):
    """A rollout of all `LIVES`, with the states that a policy with these parameters would have carried into it."""
    walk, params = walker(network), eqx.filter(network, eqx.is_inexact_array)
    tapes, states = [], []
    for row, (_, first) in enumerate(LIVES):
        tape, memory = life(row, actions), network.initial_state()
        if first:
            _, after = walk(params, tape.observation[: SLOTS + 1], jnp.asarray(True), memory)
            memory = jax.tree.map(lambda leaf, t=first - 1: leaf[t], after)
        tapes.append(cut(tape, first))
        states.append(memory)
    tape, state = (jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows) for rows in (tapes, states))
    return Rollout(tape, state)


def outputs(walk, params, rollout, row, slots, empty):
    """What the network says in the slots of one stretch and in the next: slot → output; memory `empty` if it begins."""
    observation, begin = (np.asarray(x[row]) for x in (rollout.tape.observation, rollout.tape.begin))
    first = slots[0]
    assert begin[first] or first == 0, "a stretch begins with its episode, or with the chunk"
    memory = empty if begin[first] else jax.tree.map(lambda leaf: leaf[row], rollout.state)
    padded = np.zeros_like(observation)
    padded[: SLOTS + 1 - first] = observation[first:]
    out, _ = walk(params, padded, jnp.asarray(begin[first]), memory)
    return {t: jax.tree.map(lambda leaf, i=t - first: leaf[i], out) for t in [*slots, slots[-1] + 1]}


def stretches(rollout):
    """(row, slots) of the transitions of each episode in the chunk: neighbours with a transition in each slot."""
    found = []
    for row, flags in enumerate(np.asarray(rollout.tape.transition)):
        slots = []
        for t, flag in enumerate(flags):
            if flag:
                slots.append(t)
            elif slots:
                found.append((row, slots))
                slots = []
        assert not slots, "the last slot of a chunk is no transition"
    return found


def gradient(algorithm, state, rollout, key):
    """The gradient of an update's only step, read back from Adam's first moment (m = (1 - β1) g), and its metrics."""

    def moments(state, rollout):
        after, metrics, _ = algorithm.update(state, rollout, key)
        found = jax.tree.leaves(after.optimiser, is_leaf=lambda x: hasattr(x, "mu"))
        (adam,) = [leaf for leaf in found if hasattr(leaf, "mu")]
        return jax.tree.map(lambda mu: mu / 0.1, adam.mu), metrics

    # What is not returned is not compiled.
    return jax.jit(moments, compiler_options=QUICKLY)(state, rollout)


def assert_trees_close(got, want, rtol=2e-4):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        scale = max(float(np.abs(b).max()), 1e-3)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)


def one_step(terminated, truncated, ends=True):
    """A rollout of one row: one transition of reward 2, and the observation after it; `ends`: its episode does."""
    observation = np.stack([np.full(OBSERVATION, 1.0), np.full(OBSERVATION, -2.0)]).astype(np.float32)
    tape = episode(observation, np.zeros(1, np.int32), np.full(1, 2.0), True, False)
    tape.terminated[0], tape.truncated[0] = ends and terminated, ends and truncated
    return Rollout(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tape), ())


def settings(kind):
    """An agent's default settings, with minibatches that divide the rows of `ragged`."""
    return kind.settings() if kind.traits.learns_from_replay else kind.settings(minibatches=4)
