import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumerated import joint, parts_of, table
from scipy import stats

from memoroids.agents.branches import Branches
from memoroids.agents.distributions import Categorical, FactoredCategorical, Gaussian, epsilon_greedy

MEAN, STD = np.array([[0.3, -1.0], [2.0, 0.0]]), np.array([[0.5, 2.0], [1.0, 0.1]])


def gaussian():
    return Gaussian(jnp.asarray(MEAN, jnp.float32), jnp.log(jnp.asarray(STD, jnp.float32)))


def test_the_log_density_and_entropy_of_a_gaussian_are_scipy_s():
    action = np.array([[0.1, 3.0], [-4.0, 0.02]])
    want = stats.norm(MEAN, STD).logpdf(action).sum(axis=-1)
    np.testing.assert_allclose(gaussian().log_prob(jnp.asarray(action, jnp.float32)), want, rtol=1e-5)
    np.testing.assert_allclose(gaussian().entropy(), stats.norm(MEAN, STD).entropy().sum(axis=-1), rtol=1e-5)


def test_gaussian_draws_have_the_mean_and_deviation():
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = np.asarray(jax.vmap(gaussian().sample)(keys))
    np.testing.assert_allclose((drawn.mean(axis=0) - MEAN) / STD, 0, atol=0.03)
    np.testing.assert_allclose(drawn.std(axis=0), STD, rtol=0.02)
    np.testing.assert_array_equal(gaussian().mode(), np.float32(MEAN))


def test_log_probabilities_and_entropy_of_a_categorical_by_hand():
    p = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    policy = Categorical(jnp.asarray(np.log(p) + 3.0, jnp.float32))
    np.testing.assert_allclose(policy.log_prob(jnp.asarray([1, 2])), np.log([0.25, 0.7]), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), -(p * np.log(p)).sum(axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(), [0, 2])
    drawn = jax.vmap(policy.sample)(jax.random.split(jax.random.key(0), 10_000))
    share = np.stack([np.bincount(column, minlength=3) / 10_000 for column in np.asarray(drawn).T])
    np.testing.assert_allclose(share, p, atol=0.02)
    assert drawn.dtype == policy.mode().dtype == jnp.int32


def test_an_impossible_action_leaves_the_gradient_of_the_log_probability_finite():
    policy = Categorical(jnp.asarray([0.0, -200.0]))
    gradient = jax.grad(lambda logits: Categorical(logits).log_prob(jnp.asarray(1)))(policy.logits)
    np.testing.assert_allclose(gradient, [-1.0, 1.0])
    assert jnp.isfinite(policy.entropy())


@pytest.mark.parametrize("epsilon", [0.0, 0.4, 1.0])
def test_epsilon_is_the_share_of_actions_drawn_from_all_alike(epsilon):
    q = jnp.asarray([0.0, 3.0, 1.0, 2.0])
    keys = jax.random.split(jax.random.key(0), 4_000)
    actions = np.asarray(jax.vmap(epsilon_greedy, (None, None, 0))(q, jnp.asarray(epsilon), keys))
    share = np.bincount(actions, minlength=4) / 4_000
    # A random action is the greedy one a quarter of the time.
    want = np.full(4, epsilon / 4) + (1 - epsilon) * (np.arange(4) == 1)
    np.testing.assert_allclose(share, want, atol=0.025)


SIZES = [(3, 2, 4), (2, 2, 2), (4, 2, 4, 1)]


def factored(sizes):
    return FactoredCategorical(Branches(jax.random.normal(jax.random.key(3), (sum(sizes),)), sizes))


@pytest.mark.parametrize("sizes", SIZES)
def test_a_factored_policy_is_the_product_of_its_parts_counted_through(sizes):
    policy, actions = factored(sizes), joint(sizes)
    p = np.asarray(table(policy.logits), np.float64)
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-6)
    log_prob = jax.vmap(policy.log_prob)(jnp.asarray(actions))
    np.testing.assert_allclose(np.exp(log_prob), p, rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), -(p * np.log(p)).sum(), rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(), actions[p.argmax()])


@pytest.mark.parametrize("sizes", SIZES)
def test_draws_of_a_factored_policy_have_the_joint_distribution(sizes):
    policy = factored(sizes)
    drawn = np.asarray(jax.vmap(policy.sample)(jax.random.split(jax.random.key(0), 20_000)))
    share = [(drawn == action).all(axis=1).mean() for action in joint(sizes)]
    np.testing.assert_allclose(share, table(policy.logits), atol=0.012)
    assert drawn.dtype == policy.mode().dtype == np.int32 and drawn.shape == (20_000, len(sizes))


def test_rows_of_a_factored_policy_are_policies_of_their_own():
    sizes, rows = (3, 2, 4), jax.random.normal(jax.random.key(5), (6, 9))
    action = jnp.asarray(joint(sizes)[:6])
    whole = FactoredCategorical(Branches(rows, sizes))
    each = [FactoredCategorical(Branches(row, sizes)) for row in rows]
    want = [policy.log_prob(a) for policy, a in zip(each, action, strict=True)]
    np.testing.assert_allclose(whole.log_prob(action), want, rtol=1e-5)
    np.testing.assert_allclose(whole.entropy(), [policy.entropy() for policy in each], rtol=1e-5)
    np.testing.assert_array_equal(whole.mode(), [policy.mode() for policy in each])


@pytest.mark.parametrize("epsilon", [0.0, 0.4, 1.0])
def test_each_part_of_an_action_is_random_with_probability_epsilon_whatever_the_others_are(epsilon):
    q = Branches(jax.random.normal(jax.random.key(3), (9,)), (3, 2, 4))
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = np.asarray(jax.vmap(epsilon_greedy, (None, None, 0))(q, jnp.asarray(epsilon), keys))
    assert drawn.dtype == np.int32
    marginals = [
        np.full(part.size, epsilon / part.size) + (1 - epsilon) * (np.arange(part.size) == part.argmax())
        for part in parts_of(q)
    ]
    share = [(drawn == action).all(axis=1).mean() for action in joint(q.sizes)]
    want = [np.prod([p[i] for p, i in zip(marginals, action, strict=True)]) for action in joint(q.sizes)]
    np.testing.assert_allclose(share, want, atol=0.014)
