import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumerated import PARTS, parts_of

from kinds_of_memory import SMALL
from memoroids.agents.base import Plan
from memoroids.agents.dqn import DQNConfig, dqn
from memoroids.agents.networks import QNetwork
from memoroids.memory import REGISTRY
from memoroids.replay import Sample, SegmentSample
from memoroids.tape import concatenate, episode, pad
from memoroids.tape.segments import split

OBSERVATION, ACTIONS, WIDTH = 3, 4, 8
LENGTHS = (4, 1, 5, 3)
# Nearly all the time of these tests is compilation.
QUICKLY = {"xla_backend_optimization_level": 0}


def episodes(sizes=ACTIONS):
    rng = np.random.default_rng(0)
    return [
        episode(
            rng.normal(size=(n + 1, OBSERVATION)).astype(np.float32),
            rng.integers(sizes, size=n if isinstance(sizes, int) else (n, len(sizes))).astype(np.int32),
            3 * rng.normal(size=n),
            terminated=i % 2 == 0,
            truncated=i % 2 == 1,
        )
        for i, n in enumerate(LENGTHS)
    ]


class AnyBatchSize:
    """An agent whose batch size is an argument of each update, whereas the real one is made for a fixed batch size."""

    def __init__(self, config, network):
        self._config, self._network = config, network
        self.init, self.network, self.act, *_ = dqn(config, network, Plan())

    def update(self, state, sample, count):
        return dqn(self._config, self._network, Plan(count)).update(state, sample, jax.random.key(0))


def build(name, config=None, actions=ACTIONS):
    network = QNetwork(OBSERVATION, actions, REGISTRY[name], key=jax.random.key(0), width=WIDTH, sizes=SMALL[name])
    algorithm = AnyBatchSize(config or DQNConfig(), network)
    state = algorithm.init(network)
    # A target network that differs, so that mixing the two up shows.
    target = jax.tree.map(lambda leaf: 0.8 * leaf + 0.01, state.target)
    return network, algorithm, state._replace(target=target)


def batch(tapes, slots=None):
    tape = concatenate(tapes)
    tape = pad(tape, slots or tape.slots)
    return Sample(jax.tree.map(jnp.asarray, tape), jnp.asarray(tape.transition, jnp.float32))


def updater(algorithm):
    return jax.jit(algorithm.update, static_argnums=2, compiler_options=QUICKLY)


def sgd_gradient(algorithm, state, sample, count):
    """The gradient that an update took, read back from Adam's first moment after one step: m = (1 - β1) g.

    And its metrics, the TD errors among them as `errors`.
    """

    def moments(state, sample):
        after, metrics, errors = algorithm.update(state, sample, count)
        found = jax.tree.leaves(after.optimiser, is_leaf=lambda x: hasattr(x, "mu"))
        (adam,) = [leaf for leaf in found if hasattr(leaf, "mu")]
        return jax.tree.map(lambda mu: mu / 0.1, adam.mu), metrics | {"errors": errors}

    # What is not returned is not compiled.
    return jax.jit(moments, compiler_options=QUICKLY)(state, sample)


@functools.cache
def stepper(name, actions=ACTIONS):
    network, _, _ = build(name, actions=actions)
    static = eqx.filter(network, eqx.is_inexact_array, inverse=True)

    @jax.jit
    def step(params, observation, begin, memory):
        return eqx.combine(params, static).step(observation, begin, memory)

    return step


def slow_gradient(network, step, state, tape, discount, first=0, last=None, recompute_next_state=False, lambda_=0.0):
    """Full back-propagation through one episode, step by step, with the loss written out transition by transition.

    Or through its transitions from `first` to before `last`, the memory empty before them. With `recompute_next_state`,
    next states come from a memory that starts at the second of these observations.
    """
    tape = jax.tree.map(np.asarray, tape)
    last = tape.slots - 1 if last is None else last

    def q_values(params, skip=0):
        memory, out = network.initial_state(), {}
        for t in range(first + skip, last + 1):
            begin = jnp.asarray(t - skip == 0)
            out[t], memory = step(params, jnp.asarray(tape.observation[t]), begin, memory)
        return out

    q_target = q_values(state.target, skip=int(recompute_next_state))
    q_online = q_values(state.params, skip=int(recompute_next_state))

    targets = {}
    for t in reversed(range(first, last)):
        # Each part of an action has a target of its own.
        for d in range(len(parts_of(q_target[t + 1]))):
            value = 0.0
            if not tape.terminated[t]:
                value = parts_of(q_target[t + 1])[d][jnp.argmax(parts_of(q_online[t + 1])[d])]
                if t + 1 < last:
                    value = (1 - lambda_) * value + lambda_ * targets[t + 1, d]
            targets[t, d] = tape.reward[t] + discount * value

    def loss(params):
        q, total = q_values(params), 0.0
        for t in range(first, last):
            losses = []
            for d, (part, action) in enumerate(zip(parts_of(q[t]), np.atleast_1d(tape.action[t]), strict=True)):
                error = jnp.abs(targets[t, d] - part[action])
                losses.append(jnp.where(error <= 1, 0.5 * error**2, error - 0.5))
            total = total + sum(losses) / len(losses)
        return total

    return jax.value_and_grad(loss)(state.params)


def assert_trees_close(got, want, rtol=2e-4):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        scale = max(float(np.abs(b).max()), 1e-3)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize(
    ("name", "actions", "lambda_"),
    [*((name, ACTIONS, 0.0) for name in SMALL), ("ffm", PARTS, 0.0), ("gru", ACTIONS, 0.8), ("ffm", PARTS, 1.0)],
)
@pytest.mark.one_in(3)
def test_the_tape_gradient_is_the_sum_over_episodes_taken_one_at_a_time(name, actions, lambda_):
    network, algorithm, state = build(
        name, DQNConfig(scale_rewards=False, lambda_=lambda_, max_grad_norm=1e9, discount=0.9), actions
    )
    tapes, count = episodes(actions if isinstance(actions, int) else actions.sizes), 20
    got, metrics = sgd_gradient(algorithm, state, batch(tapes), count)
    step = stepper(name, actions)
    slow = [slow_gradient(network, step, state, tape, 0.9, lambda_=lambda_) for tape in tapes]
    want = jax.tree.map(lambda *g: sum(g) / count, *[gradient for _, gradient in slow])
    assert_trees_close(got, want)
    np.testing.assert_allclose(metrics["loss"], sum(loss for loss, _ in slow) / count, rtol=1e-4)
    assert float(metrics["transitions"]) == sum(LENGTHS)


@pytest.mark.parametrize("name", ["lru", "linear_transformer", "gru"])
def test_padding_and_the_order_of_episodes_change_nothing(name):
    _, algorithm, state = build(name, DQNConfig(scale_rewards=False, lambda_=0.0, max_grad_norm=1e9))
    tapes = episodes()
    plain, _ = sgd_gradient(algorithm, state, batch(tapes), 20)
    padded, _ = sgd_gradient(algorithm, state, batch(tapes, slots=40), 20)
    turned, _ = sgd_gradient(algorithm, state, batch(tapes[::-1]), 20)
    assert_trees_close(padded, plain, rtol=1e-5)
    assert_trees_close(turned, plain, rtol=1e-4)


def test_truncation_bootstraps_and_termination_does_not():
    _, algorithm, state = build("ffm", DQNConfig(scale_rewards=False, lambda_=0.0, max_grad_norm=1e9, discount=1.0))
    observation = np.ones((2, OBSERVATION), np.float32)
    losses, update = {}, updater(algorithm)
    for name, ended in {"terminated": (True, False), "truncated": (False, True), "both": (True, True)}.items():
        sample = batch([episode(observation, np.zeros(1, np.int32), np.zeros(1), *ended)])
        far = state._replace(target=jax.tree.map(lambda leaf: 5 * leaf, state.target))
        losses[name] = [float(update(s, sample, 1)[1]["loss"]) for s in (state, far)]
    assert losses["terminated"][0] == losses["terminated"][1] == losses["both"][0] == losses["both"][1]
    assert losses["truncated"][0] != losses["truncated"][1]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.one_in(3)
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
    config = DQNConfig(scale_rewards=False, lambda_=0.0, learning_rate=1e-2, warmup=4, max_grad_norm=1e-3, polyak=0.9)
    _, algorithm, state = build("ffm", config)
    sample = batch(episodes())
    gradient, metrics = sgd_gradient(algorithm, state, sample, 20)
    norm = float(jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient))))
    np.testing.assert_allclose(norm, 1e-3, rtol=1e-4)
    assert float(metrics["grad_norm"]) > 1e-3
    update = updater(algorithm)
    steps = []
    for _ in range(6):
        after, _, _ = update(state, sample, 20)
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
    update = updater(algorithm)
    state, _, _ = update(state, sample, 20)
    after, metrics, _ = update(state, broken, 20)
    assert np.isnan(metrics["loss"])
    assert int(after.skipped) == 1 and int(after.updates) == int(state.updates)
    for a, b in zip(jax.tree.leaves(after[:3]), jax.tree.leaves(state[:3]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "field", [{"learning_rate": 0.0}, {"max_grad_norm": -1.0}, {"polyak": 1.5}, {"discount": -0.1}, {"warmup": -1}]
)
def test_settings_out_of_range_are_refused_by_name(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        DQNConfig(**field)


def segments(tapes, length, rows=None, slots=None):
    """A batch of all segments of these episodes, from the empty memory; padded to `rows` and `slots`."""
    parts = [split(tape, length) for tape in tapes]
    tape = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    found, width = tape.begin.shape
    extra = ((0, (rows or found) - found), (0, (slots or width) - width))
    tape = jax.tree.map(lambda leaf: np.pad(leaf, extra + ((0, 0),) * (leaf.ndim - 2)), tape)
    tape.begin[:, width:] = True
    return jax.tree.map(jnp.asarray, tape)


def segment_batch(network, tapes, length, **sizes):
    tape = segments(tapes, length, **sizes)
    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(tape.begin), *leaf.shape)), network.initial_state())
    return SegmentSample(tape, tape.transition.astype(jnp.float32), start, None)


@pytest.mark.parametrize(
    ("name", "next_state"),
    [
        *[(name, "tape") for name in SMALL],
        ("ffm", "recomputed"),
        ("linear_transformer", "recomputed"),
        ("gru", "recomputed"),
    ],
)
@pytest.mark.one_in(3)
def test_segments_that_hold_whole_episodes_learn_what_the_tape_does(name, next_state):
    # The same settings as in the test of the tape's gradient against a loop, so that one anchors the other.
    network, algorithm, state = build(
        name, DQNConfig(scale_rewards=False, lambda_=0.0, max_grad_norm=1e9, discount=0.9, next_state=next_state)
    )
    tapes = episodes()
    want, tape_metrics = sgd_gradient(algorithm, state, batch(tapes), 20)
    # A segment longer than every episode: all have padding.
    got, metrics = sgd_gradient(algorithm, state, segment_batch(network, tapes, 6), 20)
    assert_trees_close(got, want, rtol=1e-4)
    for key in ("loss", "td_error", "q_mean", "grad_norm", "transitions"):
        np.testing.assert_allclose(metrics[key], tape_metrics[key], rtol=1e-4, err_msg=key)
    assert float(metrics["transitions"]) == sum(LENGTHS)
    # Slots count padding and final observations: rows of L + 1 against T + 1 for each episode.
    assert float(metrics["slots"]) == 4 * 7 and float(tape_metrics["slots"]) == sum(LENGTHS) + 4


@pytest.mark.parametrize(
    ("name", "next_state"),
    [("lru", "tape"), ("gru", "tape"), ("ffm", "recomputed"), ("linear_transformer", "recomputed")],
)
@pytest.mark.one_in(2)
def test_the_gradient_of_short_segments_is_the_sum_over_segments_taken_one_at_a_time(name, next_state):
    network, algorithm, state = build(
        name, DQNConfig(scale_rewards=False, lambda_=0.0, max_grad_norm=1e9, discount=0.9, next_state=next_state)
    )
    tapes, count, step = episodes(), 20, stepper(name)
    got, metrics = sgd_gradient(algorithm, state, segment_batch(network, tapes, 2), count)
    slow = [
        slow_gradient(network, step, state, tape, 0.9, first, min(first + 2, n), next_state == "recomputed")
        for tape, n in zip(tapes, LENGTHS, strict=True)
        for first in range(0, n, 2)
    ]
    want = jax.tree.map(lambda *g: sum(g) / count, *[gradient for _, gradient in slow])
    assert_trees_close(got, want)
    np.testing.assert_allclose(metrics["loss"], sum(loss for loss, _ in slow) / count, rtol=1e-4)
    assert float(metrics["transitions"]) == sum(LENGTHS) and float(metrics["slots"]) == len(slow) * 3


def test_the_gradient_of_the_tape_with_next_states_alone_is_that_of_a_slow_loop():
    network, algorithm, state = build(
        "lru", DQNConfig(scale_rewards=False, lambda_=0.0, max_grad_norm=1e9, discount=0.9, next_state="recomputed")
    )
    tapes, count, step = episodes(), 20, stepper("lru")
    got, metrics = sgd_gradient(algorithm, state, batch(tapes), count)
    slow = [slow_gradient(network, step, state, tape, 0.9, recompute_next_state=True) for tape in tapes]
    assert_trees_close(got, jax.tree.map(lambda *g: sum(g) / count, *[gradient for _, gradient in slow]))
    np.testing.assert_allclose(metrics["loss"], sum(loss for loss, _ in slow) / count, rtol=1e-4)


@pytest.mark.parametrize("batching", ["tape", "segments"])
def test_next_states_alone_forget_the_first_observation_and_those_of_the_tape_do_not(batching):
    network, _, _ = build("ffm")

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def run(sample):
        return {
            recompute_next_state: sample.run(network, recompute_next_state=recompute_next_state)
            for recompute_next_state in (False, True)
        }

    def sample(tapes):
        return batch(tapes) if batching == "tape" else segment_batch(network, tapes, 6)

    def other_start(tape):
        observation = tape.observation.copy()
        observation[0] += 1
        return eqx.tree_at(lambda t: t.observation, tape, observation)

    tapes = episodes()
    before, after = run(sample(tapes)), run(sample([other_start(tape) for tape in tapes]))
    real = np.asarray(sample(tapes).flat[1]) > 0
    assert real.sum() == sum(LENGTHS)
    # Each transition's own value may remember o_0, its next one alone does not: bit for bit.
    assert (np.asarray(before[True][0] != after[True][0])[real]).any(axis=1).all()
    np.testing.assert_array_equal(np.asarray(after[True][1])[real], np.asarray(before[True][1])[real])
    assert (np.asarray(before[False][1] != after[False][1])[real]).any(axis=1).all()
    np.testing.assert_array_equal(before[True][0], before[False][0])


@pytest.mark.parametrize("next_state", ["tape", "recomputed"])
def test_the_online_network_chooses_the_next_action_and_the_target_network_values_it(next_state):
    _, algorithm, state = build("ffm", DQNConfig(scale_rewards=False, lambda_=0.0, discount=0.9, next_state=next_state))
    rng = np.random.default_rng(2)
    tapes = [
        episode(
            4 * rng.normal(size=(3, OBSERVATION)).astype(np.float32),
            rng.integers(ACTIONS, size=2),
            rng.normal(size=2),
            terminated=i % 5 == 0,
            truncated=i % 5 > 0,
        )
        for i in range(60)
    ]
    sample = batch(tapes)
    # No action is best everywhere, so that networks and kinds of next states disagree now and then on which one is.
    params = eqx.tree_at(lambda p: p.head.advantage.weight, state.params, 10 * state.params.head.advantage.weight)
    usual = jax.jit(lambda p: sample.run(algorithm.network(p))[0].mean(0), compiler_options=QUICKLY)(params)
    params = eqx.tree_at(lambda p: p.head.advantage.bias, params, -usual)
    state = state._replace(params=params, target=jax.tree.map(lambda leaf: 1.5 * leaf + 0.01, params))

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def run(state, sample):
        q, values = None, {}
        for who, of in (("online", state.params), ("target", state.target)):
            for recompute_next_state, where in ((False, "tape"), (True, "recomputed")):
                q_of, values[who, where] = sample.run(algorithm.network(of), recompute_next_state=recompute_next_state)
                q = q_of if q is None else q
        return q, values, algorithm.update(state, sample, 120)[1]["loss"]

    q, values, loss = jax.tree.map(np.asarray, run(state, sample))

    def loss_where(choose, value):
        every, best = np.arange(len(q)), np.argmax(values[choose], axis=1)
        bootstrap = np.where(sample.tape.terminated, 0, values[value][every, best])
        error = np.abs(sample.tape.reward + 0.9 * bootstrap - q[every, sample.tape.action])
        losses = np.where(error <= 1, 0.5 * error**2, error - 0.5)
        return float((losses * sample.weight).sum() / 120)

    right = ("online", next_state), ("target", next_state)
    np.testing.assert_allclose(loss, loss_where(*right), rtol=1e-5)
    others = [loss_where(choose, value) for choose in values for value in values if (choose, value) != right]
    assert len(others) == 15 and min(abs(other - loss) for other in others) > 1e-4 * loss


@pytest.mark.parametrize("scale", [0.02, 3.0], ids=["inside one", "outside"])
def test_the_huber_loss_of_the_mean_error_as_the_learner_has_it(scale):
    network, algorithm, state = build(
        "mlp", DQNConfig(scale_rewards=False, lambda_=0.0, max_grad_norm=1e9, loss="huber-of-mean")
    )
    # Episodes of one step, all terminated: the target is the reward, and errors have both signs.
    rewards = scale * np.asarray([1.0, -2.0, 0.5])
    observation = np.random.default_rng(1).normal(size=(3, 2, OBSERVATION)).astype(np.float32)
    actions = np.asarray([0, 3, 1], np.int32)
    tapes = [
        episode(o, np.asarray([a], np.int32), np.asarray([r]), True, False)
        for o, a, r in zip(observation, actions, rewards, strict=True)
    ]
    q, _ = network(jnp.asarray(observation[:, 0]), jnp.ones(3, bool))
    mean = np.abs(rewards - np.asarray(q)[np.arange(3), actions]).sum() / 4
    want = 0.5 * mean**2 if mean <= 1 else mean - 0.5
    assert (mean <= 1) == (scale < 1)
    gradient, metrics = sgd_gradient(algorithm, state, segment_batch(network, tapes, 2), 4)
    np.testing.assert_allclose(metrics["loss"], want, rtol=1e-5)
    np.testing.assert_allclose(metrics["td_error"], mean * 4 / 3, rtol=1e-5)
    # The head's bias moves every value alike: its gradient is the mean error, at most one, times the share of signs.
    signs = np.sign(np.asarray(q)[np.arange(3), actions] - rewards)
    np.testing.assert_allclose(gradient.head.value.bias, [min(mean, 1) * signs.sum() / 4], rtol=1e-4)


def test_padding_of_segments_changes_nothing():
    network, algorithm, state = build(
        "ffm",
        DQNConfig(scale_rewards=False, lambda_=0.0, max_grad_norm=1e9, loss="huber-of-mean", next_state="recomputed"),
    )
    tapes = episodes()
    plain, metrics = sgd_gradient(algorithm, state, segment_batch(network, tapes, 3), 20)
    padded, more = sgd_gradient(algorithm, state, segment_batch(network, tapes, 3, rows=9, slots=6), 20)
    assert_trees_close(padded, plain, rtol=1e-5)
    for key in ("loss", "td_error", "q_mean", "transitions"):
        np.testing.assert_allclose(more[key], metrics[key], rtol=1e-5, err_msg=key)


def test_td_errors_are_a_slow_loops_and_several_tapes_learn_what_one_does():
    network, algorithm, state = build(
        "lru", DQNConfig(scale_rewards=False, lambda_=0.0, max_grad_norm=1e9, discount=0.9)
    )
    tapes, step, slow = episodes(), stepper("lru"), []
    for tape in tapes:
        q = {}
        for who, params in (("online", state.params), ("target", state.target)):
            memory, q[who] = network.initial_state(), []
            for t in range(tape.slots):
                out, memory = step(params, jnp.asarray(tape.observation[t]), jnp.asarray(t == 0), memory)
                q[who].append(np.asarray(out))
        for t in range(tape.slots - 1):
            value = 0.0 if tape.terminated[t] else q["target"][t + 1][np.argmax(q["online"][t + 1])]
            slow.append(tape.reward[t] + 0.9 * value - q["online"][t][tape.action[t]])
    # Two episodes on each of two tapes, the first with padding.
    parts = [batch(tapes[:2], slots=10), batch(tapes[2:])]
    two = Sample(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *[(part.tape, part.weight) for part in parts]))
    want, _ = sgd_gradient(algorithm, state, batch(tapes), 20)
    for sample in (batch(tapes), two, segment_batch(network, tapes, 6)):
        got, metrics = sgd_gradient(algorithm, state, sample, 20)
        assert_trees_close(got, want, rtol=1e-4)
        errors, transition = np.asarray(metrics["errors"]), np.asarray(sample.flat[0].transition)
        assert errors.shape == transition.shape
        np.testing.assert_allclose(errors[transition], slow, rtol=1e-4, atol=1e-5)
        assert not errors[~transition].any()
        np.testing.assert_allclose(metrics["td_error"], np.abs(slow).mean(), rtol=1e-4)
        assert float(metrics["transitions"]) == len(slow)


def test_importance_weighs_the_loss_and_leaves_errors_and_counts_alone():
    _, algorithm, state = build("lru", DQNConfig(scale_rewards=False, lambda_=0.0, max_grad_norm=1e9, discount=0.9))
    tapes = episodes()
    plain = batch(tapes)
    parts = [plain._replace(weight=plain.weight * (plain.tape.episodes() == i)) for i in range(len(tapes))]
    importance = (0.25, 1.0, 0.5, 0.01)
    weighted = plain._replace(weight=sum(w * part.weight for w, part in zip(importance, parts, strict=True)))
    alone = [sgd_gradient(algorithm, state, part, 20)[0] for part in parts]
    got, metrics = sgd_gradient(algorithm, state, weighted, 20)
    want = jax.tree.map(lambda *g: sum(w * x for w, x in zip(importance, g, strict=True)), *alone)
    assert_trees_close(got, want, rtol=1e-4)
    _, plain_metrics = sgd_gradient(algorithm, state, plain, 20)
    np.testing.assert_array_equal(metrics["errors"], plain_metrics["errors"])
    for name in ("td_error", "q_mean", "transitions", "slots"):
        np.testing.assert_allclose(metrics[name], plain_metrics[name], rtol=1e-6, err_msg=name)
