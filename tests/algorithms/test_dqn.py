import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.algorithms.dqn import DQNConfig, dqn
from memoroids.memory import REGISTRY
from memoroids.networks import QNetwork
from memoroids.replay import Sample
from memoroids.tape import concatenate, episode, pad

OBSERVATION, ACTIONS, WIDTH = 3, 4, 8
LENGTHS = (4, 1, 5, 3)
SMALL = {
    "lru": {"state_size": 4},
    "s5": {"state_size": 4},
    "ffm": {"trace_size": 4, "context_size": 2},
    "linear_transformer": {"key_size": 4, "value_size": 4},
}


def episodes():
    rng = np.random.default_rng(0)
    return [
        episode(
            rng.normal(size=(n + 1, OBSERVATION)).astype(np.float32),
            rng.integers(ACTIONS, size=n).astype(np.int32),
            3 * rng.normal(size=n),
            terminated=i % 2 == 0,
            truncated=i % 2 == 1,
        )
        for i, n in enumerate(LENGTHS)
    ]


def build(name, config=None):
    network = QNetwork(
        OBSERVATION, ACTIONS, REGISTRY[name], key=jax.random.key(0), width=WIDTH, sizes=SMALL.get(name, {})
    )
    algorithm = dqn(config or DQNConfig(), network)
    state = algorithm.init(network)
    # A target network that differs, so that mixing the two up shows.
    target = jax.tree.map(lambda leaf: 0.8 * leaf + 0.01, state.target)
    return network, algorithm, state._replace(target=target)


def batch(tapes, slots=None):
    tape = concatenate(tapes)
    tape = pad(tape, slots or tape.slots)
    return Sample(jax.tree.map(jnp.asarray, tape), jnp.asarray(tape.transition, jnp.float32))


def sgd_gradient(algorithm, state, sample, count):
    """The gradient that an update took, read back from Adam's first moment after one step: m = (1 - β1) g."""
    after, metrics = jax.jit(algorithm.update, static_argnums=2)(state, sample, count)
    moments = [
        leaf for leaf in jax.tree.leaves(after.optimiser, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(leaf, "mu")
    ]
    return jax.tree.map(lambda mu: mu / 0.1, moments[0].mu), metrics


def stepper(network):
    static = eqx.filter(network, eqx.is_inexact_array, inverse=True)

    @jax.jit
    def step(params, observation, begin, memory):
        return eqx.combine(params, static).step(observation, begin, memory)

    return step


def slow_gradient(network, step, state, tape, discount):
    """Full back-propagation through one episode, step by step, with the loss written out transition by transition."""
    tape = jax.tree.map(np.asarray, tape)
    length = tape.slots - 1

    def q_values(params):
        memory, out = network.initial_state(), []
        for t in range(length + 1):
            q, memory = step(params, jnp.asarray(tape.observation[t]), jnp.asarray(t == 0), memory)
            out.append(q)
        return out

    q_target = q_values(state.target)

    def loss(params):
        q, total = q_values(params), 0.0
        for t in range(length):
            value = 0.0
            if not tape.terminated[t]:
                value = q_target[t + 1][jnp.argmax(jax.lax.stop_gradient(q[t + 1]))]
            error = jnp.abs(tape.reward[t] + discount * value - q[t][tape.action[t]])
            total = total + jnp.where(error <= 1, 0.5 * error**2, error - 0.5)
        return total

    return jax.value_and_grad(loss)(state.params)


def assert_trees_close(got, want, rtol=2e-4):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        scale = max(float(np.abs(b).max()), 1e-3)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("name", REGISTRY)
def test_the_tape_gradient_is_the_sum_over_episodes_taken_one_at_a_time(name):
    network, algorithm, state = build(name, DQNConfig(clip=1e9, discount=0.9))
    tapes, count = episodes(), 20
    got, metrics = sgd_gradient(algorithm, state, batch(tapes), count)
    step = stepper(network)
    slow = [slow_gradient(network, step, state, tape, 0.9) for tape in tapes]
    want = jax.tree.map(lambda *g: sum(g) / count, *[gradient for _, gradient in slow])
    assert_trees_close(got, want)
    np.testing.assert_allclose(metrics["loss"], sum(loss for loss, _ in slow) / count, rtol=1e-4)
    assert float(metrics["transitions"]) == sum(LENGTHS)


@pytest.mark.parametrize("name", ["lru", "linear_transformer", "gru"])
def test_padding_and_the_order_of_episodes_change_nothing(name):
    _, algorithm, state = build(name, DQNConfig(clip=1e9))
    tapes = episodes()
    plain, _ = sgd_gradient(algorithm, state, batch(tapes), 20)
    padded, _ = sgd_gradient(algorithm, state, batch(tapes, slots=40), 20)
    turned, _ = sgd_gradient(algorithm, state, batch(tapes[::-1]), 20)
    assert_trees_close(padded, plain, rtol=1e-5)
    assert_trees_close(turned, plain, rtol=1e-4)


def test_truncation_bootstraps_and_termination_does_not():
    _, algorithm, state = build("ffm", DQNConfig(clip=1e9, discount=1.0))
    observation = np.ones((2, OBSERVATION), np.float32)
    losses = {}
    for name, ended in {"terminated": (True, False), "truncated": (False, True), "both": (True, True)}.items():
        sample = batch([episode(observation, np.zeros(1, np.int32), np.zeros(1), *ended)])
        far = state._replace(target=jax.tree.map(lambda leaf: 5 * leaf, state.target))
        losses[name] = [
            float(jax.jit(algorithm.update, static_argnums=2)(s, sample, 1)[1]["loss"]) for s in (state, far)
        ]
    assert losses["terminated"][0] == losses["terminated"][1] == losses["both"][0] == losses["both"][1]
    assert losses["truncated"][0] != losses["truncated"][1]


@pytest.mark.parametrize("name", REGISTRY)
def test_the_loss_sees_the_features_that_the_policy_acted_on(name):
    network, algorithm, state = build(name)
    tape = batch(episodes()).tape
    q, _ = network(tape.observation, tape.begin)
    act = jax.jit(algorithm.act)
    memory = network.initial_state()
    for t in range(tape.slots):
        action, memory = act(state.params, memory, tape.observation[t], tape.begin[t], jnp.zeros(()), jax.random.key(t))
        best = np.flatnonzero(np.asarray(q[t]) >= float(q[t].max()) - 1e-4)
        assert int(action) in best


def test_epsilon_is_the_share_of_random_actions():
    network, algorithm, state = build("mlp")
    observation = jnp.ones(OBSERVATION)
    greedy = int(jnp.argmax(network.step(observation, jnp.asarray(True), ())[0]))

    def act(key):
        return algorithm.act(state.params, (), observation, jnp.asarray(True), jnp.asarray(0.4), key)[0]

    actions = np.asarray(jax.jit(jax.vmap(act))(jax.random.split(jax.random.key(0), 4_000)))
    share = np.bincount(actions, minlength=ACTIONS) / 4_000
    # A random action is the greedy one a quarter of the time: 0.6 + 0.4 / 4.
    np.testing.assert_allclose(share, np.where(np.arange(ACTIONS) == greedy, 0.7, 0.1), atol=0.025)


def test_warm_up_clipping_and_polyak_are_what_they_say():
    config = DQNConfig(learning_rate=1e-2, warmup=4, clip=1e-3, polyak=0.9)
    _, algorithm, state = build("ffm", config)
    sample = batch(episodes())
    gradient, metrics = sgd_gradient(algorithm, state, sample, 20)
    norm = float(jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient))))
    np.testing.assert_allclose(norm, 1e-3, rtol=1e-4)
    assert float(metrics["grad_norm"]) > 1e-3
    update = jax.jit(algorithm.update, static_argnums=2)
    steps = []
    for _ in range(6):
        after, _ = update(state, sample, 20)
        biggest = max(
            float(jnp.abs(a - b).max())
            for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(state.params), strict=True)
        )
        steps.append(biggest)
        expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state.target, after.params)
        assert_trees_close(after.target, expected, rtol=1e-5)
        state = after
    # Adam's first steps are as long as the learning rate: 0, 1/4, 2/4, 3/4, then all of it.
    np.testing.assert_allclose(steps[:5], [0.0, 0.0025, 0.005, 0.0075, 0.01], rtol=0.05)
    assert int(state.updates) == 6


def test_an_update_that_is_not_finite_changes_nothing_and_is_counted():
    _, algorithm, state = build("lru")
    sample = batch(episodes())
    broken = sample._replace(tape=eqx.tree_at(lambda t: t.reward, sample.tape, sample.tape.reward.at[2].set(jnp.nan)))
    update = jax.jit(algorithm.update, static_argnums=2)
    state, _ = update(state, sample, 20)
    after, metrics = update(state, broken, 20)
    assert np.isnan(metrics["loss"])
    assert int(after.skipped) == 1 and int(after.updates) == int(state.updates)
    for a, b in zip(jax.tree.leaves(after[:3]), jax.tree.leaves(state[:3]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "field", [{"learning_rate": 0.0}, {"clip": -1.0}, {"polyak": 1.5}, {"discount": -0.1}, {"warmup": -1}]
)
def test_settings_out_of_range_are_refused_by_name(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        DQNConfig(**field)
