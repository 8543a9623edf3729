"""A flat loss turned recurrent, against a loop over episodes and transitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.interop.recurrent_loss import Transitions, recurrent
from memoroids.memory import GRU
from memoroids.tape import concatenate, empty, episode

DISCOUNT = np.float32(0.9)


def squared_td_error(w, batch: Transitions):
    value, following = batch.observation @ w, batch.next_observation @ w
    return jnp.square(batch.reward + DISCOUNT * jnp.where(batch.terminated, 0, following) - value)


def episodes(rng):
    def one(length, terminated):
        observation = rng.standard_normal((length + 1, 3)).astype(np.float32)
        reward = rng.standard_normal(length).astype(np.float32)
        return episode(observation, np.zeros(length, np.int32), reward, terminated, not terminated)

    return [one(4, True), one(1, False), one(3, False)]


def tape_of(parts, padding=3):
    return jax.tree.map(jnp.asarray, concatenate([*parts, empty(padding, parts[0])]))


def slow(memory, w, parts):
    """Transition by transition, with the memory run step by step over each episode alone."""
    losses = []
    for part in parts:
        state, states = memory.initial_state(), []
        for t in range(part.slots):
            s, state = memory.step(jnp.asarray(part.observation[t]), jnp.asarray(part.begin[t]), state)
            states.append(s)
        for t in range(part.slots - 1):
            following = 0.0 if part.terminated[t] else states[t + 1] @ w
            losses.append((part.reward[t] + DISCOUNT * following - states[t] @ w) ** 2)
    return sum(losses) / len(losses)


def test_the_loss_and_its_gradients_are_those_of_a_loop_over_transitions(rng):
    memory, w = GRU(3, 4, key=jax.random.key(0)), jnp.asarray(rng.standard_normal(4), jnp.float32)
    parts = episodes(rng)
    got = jax.value_and_grad(recurrent(squared_td_error), argnums=(0, 1))(memory, w, tape_of(parts))
    want = jax.value_and_grad(slow, argnums=(0, 1))(memory, w, parts)
    for g, e in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-6)


def test_a_slot_without_a_transition_has_no_effect_whatever_its_loss(rng):
    memory, w, tape = GRU(3, 4, key=jax.random.key(0)), jnp.ones(4), tape_of(episodes(rng))

    def spoiled(w, batch):
        return jnp.where(tape.transition, squared_td_error(w, batch), jnp.nan)

    losses = [jax.value_and_grad(recurrent(loss), argnums=1)(memory, w, tape) for loss in (squared_td_error, spoiled)]
    for a, b in zip(jax.tree.leaves(losses[0]), jax.tree.leaves(losses[1]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert recurrent(squared_td_error)(memory, w, empty(5, tape)) == 0


def test_a_loss_without_a_derivative_where_both_states_are_equal_has_finite_gradients(rng):
    def distance(w, batch):
        return jnp.linalg.norm((batch.next_observation - batch.observation) * w[None, :], axis=1)

    gradient = jax.grad(recurrent(distance), argnums=1)(
        GRU(3, 4, key=jax.random.key(0)), jnp.ones(4), tape_of(episodes(rng))
    )
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_a_loss_that_is_a_mean_and_what_is_no_tape_are_refused(rng):
    memory, tape = GRU(3, 4, key=jax.random.key(0)), tape_of(episodes(rng))
    message = r"^recurrent: the loss must return one number for each transition, \(14,\), got \(\); leave out its mean$"
    with pytest.raises(ValueError, match=message):
        recurrent(lambda batch: jnp.mean(batch.reward))(memory, tape)
    with pytest.raises(ValueError, match=r"^recurrent: the last argument must be a Tape, got tuple$"):
        recurrent(squared_td_error)(memory, jnp.ones(4), (1, 2))
