"""What moved an action, against finite differences, and the state over time, against series with known times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.agents.branches import Branches
from memoroids.agents.distributions import Gaussian
from memoroids.agents.networks import ActorCritic, QNetwork
from memoroids.analysis.sensitivity import sensitivity
from memoroids.envs.spaces import Continuous, Factored
from memoroids.memory import REGISTRY
from memoroids.tape import episode
from memoroids.viewing.influence import components, correlation_time, influence, outputs_of, passed, states

T, N = 5, 4
ROWS = np.random.default_rng(0).standard_normal((T, N)).astype(np.float32)
GROUPS = np.asarray([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
BEGIN = np.arange(T) == 0
KEY = jax.random.key(0)
NETWORKS = {
    "action values": (QNetwork, 3, np.asarray([0, 1, 2, 0, 1])),
    "values of parts": (QNetwork, Factored((40, 50)), np.asarray([[3, 1], [0, 49], [39, 2], [5, 5], [6, 7]])),
    "policy": (ActorCritic, 3, np.asarray([0, 1, 2, 0, 1])),
    "policy of parts": (ActorCritic, Factored((40, 50)), np.asarray([[3, 1], [0, 49], [39, 2], [5, 5], [6, 7]])),
    "continuous": (ActorCritic, Continuous(2, (-1.0, -2.0), (1.0, 2.0)), np.zeros((T, 2), np.float32)),
}


def network_of(name):
    kind, actions, taken = NETWORKS[name]
    return kind((N,), actions, REGISTRY["gru"], key=KEY, width=8), taken


def numbers(network, rows, action, t):
    """What the derivative is of, written anew: ln π(a_t), Q(s_t, a_t), or the mean of a continuous action."""
    out = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[t], network(jnp.asarray(rows), BEGIN)[0])
    if not isinstance(out, tuple):
        if isinstance(out, Branches):
            starts = np.cumsum((0, *out.sizes[:-1]))
            return [np.mean(out.flat[starts + action[t]])]
        return [out[action[t]]]
    policy = out[0]
    if isinstance(policy, Gaussian):
        return list(policy.mean)
    several = isinstance(policy.logits, Branches)
    logits = policy.logits.flat if several else policy.logits
    sizes = policy.logits.sizes if several else (len(logits),)
    total, start = 0.0, 0
    for size, chosen in zip(sizes, np.atleast_1d(action[t]), strict=True):
        part = logits[start : start + size]
        total += part[chosen] - np.log(np.exp(part).sum())
        start += size
    return [total]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.one_in(5)
def test_influence_is_the_norm_of_finite_differences_by_parts(name):
    network, action = network_of(name)
    found = np.asarray(influence(network, jnp.asarray(ROWS), jnp.asarray(action), jnp.asarray(GROUPS)))
    assert found.shape == (T, T, 2)
    for t in range(T):
        assert (found[t, t + 1 :] == 0).all()
        for i in range(t + 1):
            squares = np.zeros(N)
            for n in range(N):
                sides = []
                for shift in (1e-2, -1e-2):
                    rows = ROWS.copy()
                    rows[i, n] += shift
                    sides.append(np.asarray(numbers(network, rows, action, t)))
                squares[n] = np.square((sides[0] - sides[1]) / 2e-2).sum()
            np.testing.assert_allclose(found[t, i], np.sqrt(squares @ GROUPS), rtol=0.03, atol=1e-4)


def test_its_last_row_is_the_sensitivity_of_the_last_transition():
    network, action = network_of("action values")
    rows = np.concatenate((ROWS, ROWS[:1]))
    tape = episode(rows, action.astype(np.int32), np.zeros(T), True, False)
    found = influence(network, jnp.asarray(ROWS), jnp.asarray(action), jnp.ones((N, 1)))
    np.testing.assert_allclose(found[-1, ::-1, 0], sensitivity(network, tape), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_probabilities_values_or_means_and_passes_change_with_their_rows(name):
    network, _ = network_of(name)
    found = outputs_of(network(jnp.asarray(ROWS), BEGIN)[0])
    assert found.value.shape == (T,)
    if name == "policy":
        np.testing.assert_allclose(found.options.sum(-1), 1, rtol=1e-5)
    if name == "policy of parts":
        np.testing.assert_allclose(found.options[:, :40].sum(-1), 1, rtol=1e-5)
    changed = np.stack((ROWS, -ROWS))
    both = passed(network, jnp.asarray(changed)).options
    np.testing.assert_allclose(both[0], found.options, rtol=1e-5, atol=1e-6)
    assert not np.allclose(both[1], both[0], atol=1e-4)


@pytest.mark.parametrize("memory", ["lru", "gru", "gtrxl", "mlp"])
@pytest.mark.one_in(2)
def test_states_are_those_of_acting_step_by_step(memory):
    network = QNetwork((N,), 3, REGISTRY[memory], key=KEY, width=8)
    found = states(network, jnp.asarray(ROWS))
    state = network.initial_state()
    for t in range(T):
        _, state = network.step(jnp.asarray(ROWS[t]), jnp.asarray(t == 0), state)
        for leaf, whole in zip(jax.tree.leaves(state), found, strict=True):
            np.testing.assert_allclose(whole[t], leaf, rtol=1e-4, atol=1e-5)
    shown = components(jax.device_get(found), most=6)
    assert shown.values.shape == (T * (memory != "mlp"), len(shown.times)) and len(shown.times) <= 6
    assert (shown.values >= 0).all() and (shown.values <= 1).all()


def test_components_are_sorted_by_how_long_they_last_and_those_that_stand_still_are_left_out():
    rng = np.random.default_rng(0)
    steps = 400
    series = np.zeros((steps, 3), np.complex64)
    for column, decay in enumerate((0.97, 0.2)):
        for t in range(1, steps):
            series[t, column] = decay * series[t - 1, column] + rng.standard_normal()
    shown = components([series, np.ones(steps)])
    assert shown.values.shape == (steps, 2)
    assert shown.times[0] <= 3 < 8 < shown.times[1]
    assert correlation_time(np.ones(7) * np.arange(7) * 0) == 7
