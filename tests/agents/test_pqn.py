"""PQN against loops over one episode at a time, on rollouts with every kind of boundary."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import ragged
from enumerated import PARTS, parts_of
from ragged import ACTIONS, OBSERVATION, QUICKLY, WIDTH, assert_trees_close, gradient

from kinds_of_memory import SMALL
from memoroids.agents.base import Plan, TrainingShare
from memoroids.agents.networks import QNetwork
from memoroids.agents.pqn import PQNConfig, pqn
from memoroids.agents.rollout_batch import Rollout
from memoroids.memory import REGISTRY

KEY = jax.random.key(7)


def build(name, actions=ACTIONS, **settings):
    network = QNetwork(OBSERVATION, actions, REGISTRY[name], key=jax.random.key(0), width=WIDTH, sizes=SMALL[name])
    # Heads start small: with larger ones the values of what follows take part.
    head = jax.tree.map(lambda leaf: 8 * leaf if leaf.ndim == 2 else leaf, network.head)
    network = eqx.tree_at(lambda n: n.head, network, head)
    algorithm = pqn(
        PQNConfig(**({"max_grad_norm": 1e9, "epochs": 1, "minibatches": 1, "scale_rewards": False} | settings)),
        network,
        Plan(),
    )
    return network, algorithm, algorithm.init(network)


def slow_loss(config, network, rollout, params, old_params):
    """The loss written out transition by transition, and its gradient, by steps through one episode at a time."""
    walk, empty = ragged.walker(network), network.initial_state()
    tape, targets = jax.tree.map(np.asarray, rollout.tape), {}
    for row, slots in ragged.stretches(rollout):
        q = ragged.outputs(walk, old_params, rollout, row, slots, empty)
        # Each part of an action has a target of its own.
        best = {t: np.array([float(max(part)) for part in parts_of(q[t])]) for t in q}
        for t in reversed(slots):
            if tape.terminated[row, t]:
                ahead = 0 * best[t]
            elif t == slots[-1]:
                ahead = best[t + 1]
            else:
                ahead = (1 - config.lambda_) * best[t + 1] + config.lambda_ * targets[row, t + 1]
            targets[row, t] = tape.reward[row, t] + config.discount * ahead

    def loss(params):
        total = 0.0
        for row, slots in ragged.stretches(rollout):
            q = ragged.outputs(walk, params, rollout, row, slots, empty)
            for t in slots:
                parts = zip(targets[row, t], parts_of(q[t]), np.atleast_1d(tape.action[row, t]), strict=True)
                total += jnp.mean(jnp.stack([0.5 * (target - part[a]) ** 2 for target, part, a in parts]))
        return total / len(targets)

    return jax.value_and_grad(loss)(params)


@pytest.mark.parametrize(("name", "actions"), [*((name, ACTIONS) for name in SMALL), ("ffm", PARTS)])
@pytest.mark.one_in(3)
def test_the_gradient_is_that_of_a_loop_over_one_episode_at_a_time(name, actions):
    settings = {"discount": 0.9, "lambda_": 0.7}
    network, algorithm, state = build(name, actions, **settings)
    rollout = ragged.ragged(network, actions)
    got, metrics = gradient(algorithm, state, rollout, KEY)
    loss, want = slow_loss(PQNConfig(**settings), network, rollout, state.params, state.params)
    assert_trees_close(got, want)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-4)
    count = sum(len(slots) for _, slots in ragged.stretches(rollout))
    assert float(metrics["transitions"]) == count and float(metrics["slots"]) == rollout.tape.begin.size


def test_a_later_pass_keeps_the_targets_of_the_network_at_entry():
    settings = {"discount": 0.9, "lambda_": 0.7, "learning_rate": 0.02}
    network, once, state = build("gru", **settings)
    _, twice, _ = build("gru", **settings, epochs=2)
    rollout = ragged.ragged(network)
    first, _, _ = jax.jit(once.update, compiler_options=QUICKLY)(state, rollout, KEY)
    g1, _ = gradient(once, state, rollout, KEY)
    g2, _ = gradient(twice, state, rollout, KEY)
    # Both steps' moments: m = 0.9 m_1 + 0.1 g_2.
    second = jax.tree.map(lambda both, one: both - 0.9 * one, g2, g1)
    _, want = slow_loss(PQNConfig(**settings), network, rollout, first.params, state.params)
    assert_trees_close(second, want, rtol=2e-3)


def test_the_state_before_slot_0_counts_where_the_row_goes_on_and_not_where_it_begins():
    network, algorithm, state = build("ffm")
    rollout = ragged.ragged(network)
    update = jax.jit(algorithm.update, compiler_options=QUICKLY)
    want, _, _ = update(state, rollout, KEY)
    poisoned = rollout.state.at[jnp.flatnonzero(rollout.tape.begin[:, 0])].set(jnp.nan)
    got, _, _ = update(state, rollout._replace(state=poisoned), KEY)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    other, _, _ = update(state, rollout._replace(state=2 * rollout.state), KEY)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(want), strict=True))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.one_in(3)
def test_acting_agrees_with_the_pass_over_the_rollout(name):
    network, algorithm, state = build(name)
    rollout = ragged.ragged(network)
    q, _ = rollout.run(network)
    act = jax.jit(algorithm.act, compiler_options=QUICKLY)
    for row in (0, 1):
        tape, memory = jax.tree.map(lambda leaf, row=row: leaf[row], (rollout.tape, rollout.state))
        for t in range(tape.slots):
            inputs = tape.observation[t], tape.begin[t], jnp.zeros(()), jax.random.key(t)
            action, memory = act(state.params, memory, *inputs)
            assert int(action) in np.flatnonzero(q[row, t] >= q[row, t].max() - 1e-4)


def test_truncation_and_the_end_of_the_chunk_bootstrap_and_termination_does_not():
    network, algorithm, state = build("mlp", discount=0.5)
    q, q_tp1 = (
        network.step(jnp.full(OBSERVATION, x), jnp.asarray(begin), ())[0] for x, begin in ((1.0, True), (-2.0, False))
    )
    update = jax.jit(algorithm.update, compiler_options=QUICKLY)
    on = 2 + 0.5 * float(max(q_tp1))
    for terminated, truncated, target in ((True, False, 2), (True, True, 2), (False, True, on), (False, False, on)):
        _, metrics, _ = update(state, ragged.one_step(terminated, truncated), KEY)
        np.testing.assert_allclose(metrics["td_error"], abs(target - float(q[0])), rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], 0.5 * (target - float(q[0])) ** 2, rtol=1e-5)
    assert abs(on - 2) > 1e-2


def test_an_epoch_s_minibatches_are_the_rows_each_of_them_once():
    # With steps of length nearly 0 the losses of an epoch's minibatches are those of its rows.
    network, algorithm, state = build("mlp", epochs=3, minibatches=4, learning_rate=1e-12)
    _, whole, _ = build("mlp")
    rollout = ragged.ragged(network)
    update, alone = (jax.jit(a.update, compiler_options=QUICKLY) for a in (algorithm, whole))
    after, metrics, _ = update(state, rollout, KEY)
    rows = [jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], rollout) for row in range(4)]
    losses = [float(alone(state, row, KEY)[1]["loss"]) for row in rows]
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-4)
    assert float(metrics["transitions"]) == 3 * float(rollout.tape.transition.sum())
    assert int(after.updates) == 12 and int(after.skipped) == 0


def test_a_minibatch_that_is_not_finite_changes_nothing_and_is_counted():
    network, algorithm, state = build("gru", minibatches=2)
    rollout = ragged.ragged(network)
    update = jax.jit(algorithm.update, compiler_options=QUICKLY)

    def with_nan(*rows):
        observation = rollout.tape.observation.at[jnp.asarray(rows), 4, 0].set(jnp.nan)
        return Rollout(eqx.tree_at(lambda tape: tape.observation, rollout.tape, observation), rollout.state)

    after, metrics, _ = update(state, with_nan(2), KEY)
    assert int(after.skipped) == 1 and int(after.updates) == 1 and np.isnan(metrics["loss"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    # Neighbouring rows are dealt to both minibatches.
    after, _, _ = update(state, with_nan(0, 1), KEY)
    assert int(after.skipped) == 2 and int(after.updates) == 0
    jax.tree.map(np.testing.assert_array_equal, after[:2], state[:2])


def test_the_learning_rate_warms_up_and_falls_to_its_end_over_gradient_steps():
    settings = {"learning_rate": 1e-2, "learning_rate_end": 0.0, "warmup": 2, "epochs": 2, "discount": 0.0}
    network, algorithm, state = build("mlp", **settings)
    rollout = ragged.ragged(network)
    update, biggest = jax.jit(algorithm.update, compiler_options=QUICKLY), []
    for i in range(4):
        after, _, _ = update(state, rollout, KEY, TrainingShare(i / 4, (i + 1) / 4))
        moved = [jnp.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (after.params, state.params)), strict=True)]
        biggest.append(float(max(moved)))
        state = after
    # Adam's first steps are as long as the learning rate: 0, ½ · ¾, ⅝, ½, ⅜, ¼, ⅛, 0 hundredths, two in each update.
    np.testing.assert_allclose(biggest, [0.00375, 0.01125, 0.00625, 0.00125], rtol=0.2)
    assert int(state.updates) == 8


def test_tapes_that_minibatches_do_not_divide_are_refused_before_compiling():
    network, algorithm, state = build("mlp", minibatches=3)
    with pytest.raises(ValueError, match="4 tapes cannot be divided into 3 equal minibatches: num_envs"):
        jax.eval_shape(algorithm.update, state, ragged.ragged(network), KEY)


@pytest.mark.parametrize(
    "field",
    [
        {"learning_rate": 0.0},
        {"learning_rate_end": -1.0},
        {"warmup": -1},
        {"max_grad_norm": -1.0},
        {"discount": 1.5},
        {"lambda_": -0.1},
        {"epochs": 0},
        {"minibatches": 0},
    ],
)
def test_settings_out_of_range_are_refused_by_name(field):
    with pytest.raises(ValueError, match=rf"^{next(iter(field))} must [^\n]*$"):
        PQNConfig(**field)


def test_without_a_share_of_training_the_learning_rate_is_that_of_its_beginning():
    network, falling, state = build("mlp", learning_rate_end=0.0)
    _, constant, _ = build("mlp", learning_rate_end=None)
    rollout = ragged.ragged(network)
    got, want = (jax.jit(each.update, compiler_options=QUICKLY)(state, rollout, KEY)[0] for each in (falling, constant))
    for a, b in zip(jax.tree.leaves(got.params), jax.tree.leaves(want.params), strict=True):
        np.testing.assert_array_equal(a, b)
