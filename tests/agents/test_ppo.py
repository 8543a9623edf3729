"""PPO against loops over one episode at a time, on rollouts with every kind of boundary."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import ragged
from enumerated import PARTS, index, table
from ragged import ACTIONS, BOX, OBSERVATION, QUICKLY, WIDTH, assert_trees_close, gradient

from kinds_of_memory import SMALL
from memoroids.agents.base import Plan, TrainingShare
from memoroids.agents.distributions import FactoredCategorical
from memoroids.agents.networks import ActorCritic
from memoroids.agents.ppo import PPOConfig, ppo
from memoroids.agents.rollout_batch import Rollout
from memoroids.memory import REGISTRY

KEY = jax.random.key(7)


def build(name, actions=ACTIONS, **settings):
    network = ActorCritic(
        OBSERVATION,
        actions,
        REGISTRY[name],
        key=jax.random.key(0),
        width=WIDTH,
        sizes=SMALL[name],
        predicts=settings.get("prediction_weight", 0) > 0,
    )
    # Heads start small: with larger ones policies differ between states and values take part.
    network = eqx.tree_at(
        lambda n: n.head, network, jax.tree.map(lambda leaf: 8 * leaf if leaf.ndim == 2 else leaf, network.head)
    )
    algorithm = ppo(
        PPOConfig(**({"max_grad_norm": 1e9, "epochs": 1, "minibatches": 1, "scale_rewards": False} | settings)),
        network,
        Plan(),
    )
    return network, algorithm, algorithm.init(network)


def log_prob_and_entropy(policy, action):
    """From the textbook's formulas, for one action."""
    if isinstance(policy, FactoredCategorical):
        p = table(policy.logits)
        return jnp.log(p[index(policy.logits.sizes, action)]), -jnp.sum(p * jnp.log(p))
    if hasattr(policy, "logits"):
        p = jnp.exp(policy.logits) / jnp.sum(jnp.exp(policy.logits))
        return jnp.log(p[action]), -jnp.sum(p * jnp.log(p))
    std = jnp.exp(policy.log_std)
    density = jnp.exp(-(((action - policy.mean) / std) ** 2) / 2) / (std * jnp.sqrt(2 * jnp.pi))
    return jnp.log(jnp.prod(density)), jnp.sum(jnp.log(std * jnp.sqrt(2 * jnp.pi * jnp.e)))


def slow_targets(config, tape, row, slots, values):
    """[(advantage, value target)] of one stretch, from its end."""
    advantage, found = 0.0, []
    for t in reversed(slots):
        after = 0.0 if tape.terminated[row, t] else values[t + 1]
        error = tape.reward[row, t] + config.discount * after - values[t]
        advantage = error + config.discount * config.lambda_ * advantage
        found.append((advantage, advantage + values[t]))
    return found[::-1]


def at_entry(config, network, rollout, params):
    """Outputs and (advantage, value target) of every transition, a list for each stretch of an episode."""
    walk, empty = ragged.walker(network), network.initial_state()
    tape, stretches = jax.tree.map(np.asarray, rollout.tape), ragged.stretches(rollout)
    outputs = [ragged.outputs(walk, params, rollout, *stretch, empty) for stretch in stretches]
    targets = [
        slow_targets(config, tape, *stretch, {t: float(value) for t, (_, value) in out.items()})
        for stretch, out in zip(stretches, outputs, strict=True)
    ]
    return outputs, targets


def deviation(targets):
    return np.std([advantage for found in targets for advantage, _ in found])


def slow_loss(config, network, rollout, params, old_params, entropy_weight, least=0.0, acted=None):
    """PPO's loss written out transition by transition, and its gradient, by steps through one episode at a time."""
    walk, empty = ragged.walker(network), network.initial_state()
    tape, stretches = jax.tree.map(np.asarray, rollout.tape), ragged.stretches(rollout)
    old, targets = at_entry(config, network, rollout, old_params)
    if acted is not None:
        old, _ = at_entry(config, network, rollout, acted)
    advantages = np.array([advantage for found in targets for advantage, _ in found])
    mean, std = (advantages.mean(), max(advantages.std(), least)) if config.normalise_advantages else (0.0, 1.0)

    def transition(action, policy, old_policy, value, advantage, target):
        log_prob, entropy = log_prob_and_entropy(policy, action)
        ratio, a = jnp.exp(log_prob - log_prob_and_entropy(old_policy, action)[0]), (advantage - mean) / std
        low, high = 1 - config.clip_ratio, 1 + config.clip_ratio
        surrogate = jnp.minimum(ratio * a, jnp.minimum(jnp.maximum(ratio, low), high) * a)
        return -surrogate + config.value_weight * 0.5 * (target - value) ** 2 - entropy_weight * entropy

    compiled = jax.jit(transition)

    def loss(params):
        total = 0.0
        for (row, slots), out, found in zip(stretches, old, targets, strict=True):
            now = ragged.outputs(walk, params, rollout, row, slots, empty)
            for t, (advantage, target) in zip(slots, found, strict=True):
                policy, value = now[t]
                total += compiled(tape.action[row, t], policy, out[t][0], value, advantage, target)
        return total / len(advantages)

    return jax.value_and_grad(loss)(params)


@pytest.mark.parametrize(
    ("name", "actions", "normalise"),
    # Every registered memory takes the same pass over a rollout under PQN.
    [("gru", ACTIONS, True), ("lru", BOX, True), ("ffm", BOX, False), ("ffm", PARTS, True)],
)
@pytest.mark.one_in(2)
def test_the_gradient_is_that_of_a_loop_over_one_episode_at_a_time(name, actions, normalise):
    config = PPOConfig(discount=0.9, lambda_=0.7, value_weight=0.4, entropy=0.3, normalise_advantages=normalise)
    settings = {"discount": 0.9, "lambda_": 0.7, "value_weight": 0.4, "entropy": 0.3}
    network, algorithm, state = build(name, actions, **settings, normalise_advantages=normalise)
    rollout = ragged.ragged(network, actions)
    got, metrics = gradient(algorithm, state, rollout, KEY)
    loss, want = slow_loss(config, network, rollout, state.params, state.params, 0.3)
    assert_trees_close(got, want)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-4)
    count = sum(len(slots) for _, slots in ragged.stretches(rollout))
    assert float(metrics["transitions"]) == count and float(metrics["slots"]) == rollout.tape.begin.size


@pytest.mark.parametrize("actions", [ACTIONS, BOX, PARTS])
def test_the_next_observation_is_predicted_from_what_was_seen_and_done(actions):
    weight = 0.6
    network, algorithm, state = build("gru", actions, prediction_weight=weight)
    rollout = ragged.ragged(network, actions)
    got, metrics = gradient(algorithm, state, rollout, KEY)
    tape, stretches = jax.tree.map(np.asarray, rollout.tape), ragged.stretches(rollout)
    static = eqx.partition(network, eqx.is_inexact_array)[1]
    walk, empty = ragged.walker(network.with_features()), network.initial_state()

    def errors(params):
        whole = eqx.combine(params, static)
        inside = eqx.filter(whole.with_features(), eqx.is_inexact_array)
        total, count = 0.0, 0
        for row, slots in stretches:
            out = ragged.outputs(walk, inside, rollout, row, slots, empty)
            for t in slots:
                action = tape.action[row, t]
                if actions is not BOX:
                    sizes = [actions] if isinstance(actions, int) else actions.sizes
                    action = np.concatenate([np.eye(n)[i] for n, i in zip(sizes, np.atleast_1d(action), strict=True)])
                linear = whole.predictor.linear
                guess = linear.weight @ jnp.concatenate((out[t][1], jnp.asarray(action, jnp.float32))) + linear.bias
                total += jnp.mean((guess - tape.observation[row, t + 1]) ** 2)
                count += 1
        return weight * total / count

    loss, want = slow_loss(PPOConfig(), network, rollout, state.params, state.params, 0.01)
    extra, more = jax.value_and_grad(errors)(state.params)
    assert_trees_close(got, jax.tree.map(jnp.add, want, more))
    np.testing.assert_allclose(metrics["loss"], loss + extra, rtol=1e-4)
    assert extra > 0.05


def test_acting_and_the_start_of_the_network_do_not_depend_on_the_prediction():
    plain, _, _ = build("gru")
    network, _, _ = build("gru", prediction_weight=1.0)
    assert plain.predictor is None and network.predictor is not None
    without = eqx.tree_at(lambda n: n.predictor, network, None)
    assert jax.tree.structure(without) == jax.tree.structure(plain)
    jax.tree.map(np.testing.assert_array_equal, without, plain)


@pytest.mark.parametrize("actions", [ACTIONS, BOX])
def test_an_update_on_what_an_older_policy_did_weighs_it_against_that_policy(actions):
    settings = {"discount": 0.9, "lambda_": 0.7, "clip_ratio": 0.1}
    network, algorithm, state = build("gru", actions, **settings)
    older = jax.tree.map(lambda leaf: 0.7 * leaf, state.params)
    rollout = ragged.ragged(network, actions)
    got, metrics = gradient(algorithm, state, rollout._replace(behaviour=older), KEY)
    config = PPOConfig(**settings)
    loss, want = slow_loss(config, network, rollout, state.params, state.params, config.entropy, acted=older)
    assert_trees_close(got, want)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-4)
    assert metrics["clipped"] > 0.1


@pytest.mark.parametrize("window", [0, 10, 20_000])
@pytest.mark.one_in(3)
def test_advantages_that_spread_less_than_those_before_are_not_enlarged(window):
    settings = {"discount": 0.9, "lambda_": 0.7, "scale_rewards": False, "advantage_window": window}
    network, algorithm, state = build("gru", **settings)
    rollout = ragged.ragged(network, ACTIONS)
    count = sum(len(slots) for _, slots in ragged.stretches(rollout))
    rich = rollout._replace(tape=dataclasses.replace(rollout.tape, reward=30 * rollout.tape.reward))
    after, _, _ = jax.jit(algorithm.update, compiler_options=QUICKLY)(state, rich, KEY)
    least = 0.0
    config = PPOConfig(**settings)
    if window:
        # What was before counts as `window` transitions at most, what is new with all of its own.
        before, new = (deviation(at_entry(config, network, each, state.params)[1]) for each in (rich, rollout))
        share = min(count, window) / (min(count, window) + count)
        least = math.sqrt(share * before**2 + (1 - share) * new**2)
        assert least > 2 * new
    got, _ = gradient(algorithm, state._replace(spread=after.spread), rollout, KEY)
    assert_trees_close(got, slow_loss(config, network, rollout, state.params, state.params, config.entropy, least)[1])


@pytest.mark.parametrize("actions", [ACTIONS, PARTS, BOX])
@pytest.mark.one_in(3)
def test_a_later_pass_clips_against_the_policy_at_entry(actions):
    settings = {"discount": 0.9, "lambda_": 0.7, "learning_rate": 0.02, "clip_ratio": 0.1}
    network, once, state = build("gru", actions, **settings)
    _, twice, _ = build("gru", actions, **settings, epochs=2)
    rollout = ragged.ragged(network, actions)
    first, _, _ = jax.jit(once.update, compiler_options=QUICKLY)(state, rollout, KEY)
    g1, metrics1 = gradient(once, state, rollout, KEY)
    g2, metrics2 = gradient(twice, state, rollout, KEY)
    # Both steps' moments: m = 0.9 m_1 + 0.1 g_2.
    second = jax.tree.map(lambda both, one: both - 0.9 * one, g2, g1)
    config = PPOConfig(**settings)
    loss, want = slow_loss(config, network, rollout, first.params, state.params, config.entropy)
    assert_trees_close(second, want, rtol=2e-3)
    np.testing.assert_allclose(2 * metrics2["loss"] - metrics1["loss"], loss, rtol=1e-3)
    assert metrics1["clipped"] == 0 and metrics2["clipped"] > 0.1 and metrics2["kl"] > 0


@pytest.mark.parametrize("actions", [ACTIONS, BOX])
def test_a_larger_value_loss_pulls_harder_and_the_policy_s_pull_stays(actions):
    rollout, pulls = None, []
    for value_weight in (0.5, 50.0):
        network, algorithm, state = build("gru", actions, value_weight=value_weight)
        rollout = rollout or ragged.ragged(network, actions)
        _, metrics, _ = jax.jit(algorithm.update, compiler_options=QUICKLY)(state, rollout, KEY)
        pulls.append((float(metrics["policy_grad"]), float(metrics["value_grad"])))
    np.testing.assert_allclose(pulls[1][0], pulls[0][0], rtol=1e-4)
    np.testing.assert_allclose(pulls[1][1], 100 * pulls[0][1], rtol=1e-4)
    assert min(pulls[0]) > 0 and -1 <= float(metrics["explained_variance"]) <= 1


def test_the_state_before_slot_0_counts_where_the_row_goes_on_and_not_where_it_begins():
    network, algorithm, state = build("lru")
    rollout = ragged.ragged(network)
    update = jax.jit(algorithm.update, compiler_options=QUICKLY)
    want, _, _ = update(state, rollout, KEY)
    begins = rollout.tape.begin[:, 0]
    assert begins.tolist() == [False, True, False, False]

    def poisoned(rows):
        return jax.tree.map(lambda leaf: jnp.where(rows[:, None], jnp.nan, leaf), rollout.state)

    got, _, _ = update(state, rollout._replace(state=poisoned(begins)), KEY)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, rollout.state)
    other, _, _ = update(state, rollout._replace(state=doubled), KEY)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(want), strict=True))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.one_in(3)
def test_acting_agrees_with_the_pass_over_the_rollout(name):
    network, algorithm, state = build(name)
    rollout = ragged.ragged(network)
    (policy, _), _ = rollout.run(network)
    act = jax.jit(algorithm.act)
    for row in (0, 1):
        tape = jax.tree.map(lambda leaf, row=row: leaf[row], rollout.tape)
        memory = mode_memory = jax.tree.map(lambda leaf, row=row: leaf[row], rollout.state)
        for t in range(tape.slots):
            inputs, key = (tape.observation[t], tape.begin[t]), jax.random.key(t)
            logits = policy.logits[row, t]
            action, memory = act(state.params, memory, *inputs, jnp.ones(()), key)
            assert action.dtype == jnp.int32
            # The same draw from the same logits.
            assert int(action) == int(jax.random.categorical(key, logits))
            best, mode_memory = act(state.params, mode_memory, *inputs, jnp.zeros(()), key)
            assert int(best) in np.flatnonzero(logits >= logits.max() - 1e-4)


def test_continuous_actions_are_drawn_around_the_mean_and_without_exploration_are_the_mean():
    network, algorithm, state = build("mlp", BOX)
    observation, begin = jnp.ones(OBSERVATION), jnp.asarray(True)
    (policy, _), _ = network.step(observation, begin, ())

    def act(explore, key):
        return algorithm.act(state.params, (), observation, begin, explore, key)[0]

    np.testing.assert_allclose(act(jnp.zeros(()), KEY), policy.mean, rtol=1e-6)
    drawn = np.asarray(jax.vmap(act, (None, 0))(jnp.ones(()), jax.random.split(KEY, 20_000)))
    np.testing.assert_allclose(drawn.mean(axis=0), policy.mean, atol=0.05)
    np.testing.assert_allclose(drawn.std(axis=0), np.exp(policy.log_std), rtol=0.02)


def test_truncation_and_the_chunk_s_end_bootstrap_and_termination_does_not():
    network, algorithm, state = build("mlp", discount=0.5)
    value = [
        float(network.step(jnp.full(OBSERVATION, x), jnp.asarray(b), ())[0][1]) for x, b in ((1, True), (-2, False))
    ]
    update = jax.jit(algorithm.update, compiler_options=QUICKLY)
    for ends, target in (((True, False), 2), ((True, True), 2), ((False, True), 2 + 0.5 * value[1])):
        _, metrics, _ = update(state, ragged.one_step(*ends), KEY)
        np.testing.assert_allclose(metrics["td_error"], abs(target - value[0]), rtol=1e-5)
    _, metrics, _ = update(state, ragged.one_step(False, False, ends=False), KEY)
    np.testing.assert_allclose(metrics["td_error"], abs(2 + 0.5 * value[1] - value[0]), rtol=1e-5)
    assert abs(value[1]) > 1e-2


def test_minibatches_are_whole_rows_that_each_count_once_an_epoch():
    # With steps of length nearly 0 the losses of an epoch's minibatches are those of its rows.
    network, algorithm, state = build("gru", epochs=3, minibatches=4, learning_rate=1e-12, normalise_advantages=False)
    _, whole, _ = build("gru", normalise_advantages=False)
    rollout = ragged.ragged(network)
    update, alone = (jax.jit(a.update, compiler_options=QUICKLY) for a in (algorithm, whole))
    after, metrics, _ = update(state, rollout, KEY)
    rows = [jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], rollout) for row in range(4)]
    losses = [float(alone(state, row, KEY)[1]["loss"]) for row in rows]
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-4)
    assert float(metrics["transitions"]) == 3 * float(rollout.tape.transition.sum())
    assert int(after.updates) == 12 and int(after.skipped) == 0


def test_a_minibatch_that_is_not_finite_changes_nothing_and_is_counted():
    network, algorithm, state = build("lru", minibatches=2)
    rollout = ragged.ragged(network)
    update = jax.jit(algorithm.update, compiler_options=QUICKLY)

    def with_nan(*rows):
        reward = rollout.tape.reward.at[jnp.asarray(rows), 1].set(jnp.nan)
        return Rollout(eqx.tree_at(lambda tape: tape.reward, rollout.tape, reward), rollout.state)

    after, metrics, _ = update(state, with_nan(2), KEY)
    assert int(after.skipped) == 1 and int(after.updates) == 1 and np.isnan(metrics["loss"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    # A pair of neighbouring rows lies in two minibatches.
    after, _, _ = update(state, with_nan(0, 1), KEY)
    assert int(after.skipped) == 2 and int(after.updates) == 0
    jax.tree.map(np.testing.assert_array_equal, after[:2], state[:2])


def test_the_weight_of_entropy_falls_linearly_to_its_end():
    settings = {"value_weight": 0.0, "learning_rate": 1e-12, "entropy": 1.0, "entropy_end": 0.0}
    network, algorithm, state = build("mlp", **settings, minibatches=2)
    rollout = ragged.ragged(network)
    update, weights = jax.jit(algorithm.update, compiler_options=QUICKLY), []
    for i in range(3):
        state, metrics, _ = update(state, rollout, KEY, TrainingShare(i / 3, (i + 1) / 3))
        # Minibatches are alike often enough for the mean of products to be near the product of means.
        weights.append(float((metrics["policy_loss"] - metrics["loss"]) / metrics["entropy"]))
    # The weights after gradient steps 1 to 6 of 6 are 5/6 … 0, two in each update.
    np.testing.assert_allclose(weights, [0.75, 5 / 12, 1 / 12], atol=1e-3)


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
        {"clip_ratio": 0.0},
        {"value_weight": -1.0},
        {"entropy": -0.1},
        {"entropy_end": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused_by_name(field):
    with pytest.raises(ValueError, match=rf"^{next(iter(field))} must [^\n]*$"):
        PPOConfig(**field)


@pytest.mark.parametrize("field", ["learning_rate_end", "entropy_end"])
def test_without_a_share_of_training_it_is_at_its_beginning(field):
    network, falling, state = build("mlp", **{"learning_rate_end": None, field: 0.0})
    _, constant, _ = build("mlp", learning_rate_end=None)
    rollout = ragged.ragged(network)
    got, want = (jax.jit(each.update, compiler_options=QUICKLY)(state, rollout, KEY)[0] for each in (falling, constant))
    for a, b in zip(jax.tree.leaves(got.params), jax.tree.leaves(want.params), strict=True):
        np.testing.assert_array_equal(a, b)
