import jax
import jax.numpy as jnp
import numpy as np

from memoroids.agents.branches import Branches
from memoroids.agents.losses import (
    double_q_target,
    explained_variance,
    huber_of_mean,
    huber_td,
    ppo_clip,
    squared_error,
    squared_td,
    standardise,
    weighted_mean,
)


def test_the_double_q_target_by_hand():
    target = double_q_target(
        reward=jnp.asarray([1.0, 1.0]),
        terminated=jnp.asarray([False, True]),
        q_tp1_online=jnp.asarray([[0.0, 2.0], [0.0, 2.0]]),
        q_tp1_target=jnp.asarray([[10.0, 3.0], [10.0, jnp.nan]]),
        discount=0.5,
    )
    # The online network prefers action 1; the target network says it is worth 3, not its own best of 10.
    np.testing.assert_array_equal(target, [1 + 0.5 * 3, 1.0])


def test_the_huber_loss_is_quadratic_inside_one_and_linear_outside():
    losses, error = huber_td(jnp.asarray([[0.0, 9.0], [9.0, 0.0]]), jnp.asarray([0, 1]), jnp.asarray([0.5, -3.0]))
    np.testing.assert_allclose(losses, [0.125, 2.5])
    np.testing.assert_allclose(error, [0.5, -3.0])


def test_no_gradient_flows_into_the_target():
    q, action = jnp.ones((3, 2)), jnp.zeros(3, jnp.int32)
    gradient = jax.grad(lambda target: huber_td(q, action, target)[0].sum())(jnp.zeros(3))
    np.testing.assert_array_equal(gradient, 0)


def test_rows_without_weight_are_not_read():
    values, weight = jnp.asarray([1.0, jnp.nan, 3.0]), jnp.asarray([2.0, 0.0, 1.0])
    assert weighted_mean(values, weight, 10.0) == 0.5
    np.testing.assert_allclose(jax.grad(weighted_mean)(values, weight, 10.0), [0.2, 0.0, 0.1], rtol=1e-6)


def test_the_huber_loss_of_the_mean_error_by_hand():
    # Errors of both signs do not cancel: the mean of |1.5|, 2 |-0.5| and 0 |NaN| over 4 is 0.625, inside one.
    error, weight = jnp.asarray([1.5, -0.5, jnp.nan]), jnp.asarray([1.0, 2.0, 0.0])
    np.testing.assert_allclose(huber_of_mean(error, weight, 4.0), 0.5 * 0.625**2)
    # Its gradient is the mean error times the sign and weight of each, however large a single one is.
    np.testing.assert_allclose(jax.grad(huber_of_mean)(error, weight, 4.0), [0.625 / 4, -0.625 * 2 / 4, 0.0])
    # Outside one it is linear: the mean is 2.5.
    np.testing.assert_allclose(huber_of_mean(error, weight, 1.0), 2.5 - 0.5)
    np.testing.assert_allclose(jax.grad(huber_of_mean)(error, weight, 1.0), [1.0, -2.0, 0.0])


def test_the_huber_loss_of_the_mean_error_is_not_the_mean_of_huber_losses():
    q, action, target = jnp.zeros((2, 1)), jnp.zeros(2, jnp.int32), jnp.asarray([2.5, 0.5])
    losses, error = huber_td(q, action, target)
    weight = jnp.ones(2)
    np.testing.assert_allclose(weighted_mean(losses, weight, 2.0), (2.0 + 0.125) / 2)
    np.testing.assert_allclose(huber_of_mean(error, weight, 2.0), 1.5 - 0.5)


def test_the_clipped_surrogate_by_hand():
    # Ratios 2, 2, ½ and ½ with advantages of both signs: what would go further away from 1 is held at 1 ± 0.2.
    ratio, advantage = np.array([2.0, 2.0, 0.5, 0.5]), np.array([1.0, -1.0, 1.0, -1.0])
    log_prob, old = jnp.asarray(np.log(ratio * 0.3), jnp.float32), jnp.full(4, np.log(0.3), jnp.float32)
    a = jnp.asarray(advantage, jnp.float32)
    np.testing.assert_allclose(ppo_clip(log_prob, old, a, 0.2), [-1.2, 2.0, -0.5, 0.8], rtol=1e-5)
    # And pulls no more where it is held; elsewhere d ratio / d log π = ratio. Nothing flows into the constants.
    slopes = jax.grad(lambda *x: ppo_clip(*x, 0.2).sum(), argnums=(0, 1, 2))(log_prob, old, a)
    np.testing.assert_allclose(slopes[0], [0.0, 2.0, -0.5, 0.0], rtol=1e-5)
    np.testing.assert_array_equal(slopes[1:], 0)


def test_at_the_old_policy_the_clipped_surrogate_is_the_policy_gradient():
    log_prob, advantage = jnp.asarray([-1.0, -2.0]), jnp.asarray([3.0, -4.0])
    gradient = jax.grad(lambda x: ppo_clip(x, log_prob, advantage, 0.2).sum())(log_prob)
    np.testing.assert_allclose(gradient, -advantage)


def test_squared_errors_by_hand_and_no_gradient_into_the_target():
    losses, error = squared_error(jnp.asarray([1.0, 2.0]), jnp.asarray([3.0, 1.0]))
    np.testing.assert_array_equal(losses, [2.0, 0.5])
    np.testing.assert_array_equal(error, [2.0, -1.0])
    q, action, target = jnp.asarray([[1.0, 9.0], [9.0, 2.0]]), jnp.asarray([0, 1]), jnp.asarray([3.0, 1.0])
    np.testing.assert_array_equal(squared_td(q, action, target), [losses, error])
    slopes = jax.grad(lambda q, y: squared_td(q, action, y)[0].sum(), argnums=(0, 1))(q, target)
    np.testing.assert_array_equal(slopes[0], [[-2.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(slopes[1], 0)


def test_standardised_values_have_weighted_mean_0_and_deviation_1_and_rows_without_weight_are_not_read():
    values, weight = jnp.asarray([1.0, jnp.nan, 5.0]), jnp.asarray([3.0, 0.0, 1.0])
    # Mean 2, variance (3 · 1 + 9) / 4 = 3.
    np.testing.assert_allclose(standardise(values, weight), np.array([-1.0, 0.0, 3.0]) / np.sqrt(3), rtol=1e-5)
    np.testing.assert_array_equal(standardise(jnp.asarray([2.0, 2.0]), jnp.ones(2)), 0)
    np.testing.assert_array_equal(standardise(values, jnp.zeros(3)), 0)
    for least in (0.5, 4.0):
        deviation = max(np.sqrt(3), least)
        got = standardise(values, weight, jnp.float32(least))
        np.testing.assert_allclose(got, np.array([-1.0, 0.0, 3.0]) / deviation, rtol=1e-5)


def test_each_part_has_a_double_q_target_of_its_own_by_hand():
    # Parts of 2 and 3 options; the second transition terminates.
    online = Branches(jnp.asarray([[0.0, 2.0, 5.0, 1.0, 4.0]] * 2), (2, 3))
    target = Branches(jnp.asarray([[10.0, 3.0, -1.0, 7.0, 8.0], [jnp.nan] * 5]), (2, 3))
    found = double_q_target(jnp.asarray([1.0, 1.0]), jnp.asarray([False, True]), online, target, 0.5)
    np.testing.assert_array_equal(found, [[1 + 0.5 * 3, 1 + 0.5 * -1], [1, 1]])


def test_losses_of_several_parts_are_means_in_which_opposite_errors_do_not_cancel():
    q = Branches(jnp.asarray([[0.0, 9.0, 9.0, 0.0, 9.0]]), (2, 3))
    action, target = jnp.asarray([[0, 1]]), jnp.asarray([[0.5, -3.0]])
    losses, error = huber_td(q, action, target)
    np.testing.assert_allclose(losses, [(0.125 + 2.5) / 2])
    np.testing.assert_allclose(error, [(0.5 + 3.0) / 2])
    losses, error = squared_td(q, action, target)
    np.testing.assert_allclose(losses, [0.5 * (0.25 + 9) / 2])
    np.testing.assert_allclose(error, [(0.5 + 3.0) / 2])
    for loss in (huber_td, squared_td):
        slope = jax.grad(lambda y, loss=loss: sum(map(jnp.sum, loss(q, action, y))))(target)
        np.testing.assert_array_equal(slope, 0)


def test_explained_variance_is_one_for_perfect_values_zero_for_constant_ones_and_bounded_below():
    rng = np.random.default_rng(0)
    target, weight = rng.normal(size=6).astype(np.float32), jnp.asarray([1.0, 1, 1, 1, 0, 0])
    padded = jnp.asarray(target).at[4:].set(jnp.nan)
    np.testing.assert_allclose(explained_variance(jnp.asarray(target) + 3, padded, weight), 1, atol=1e-6)
    np.testing.assert_allclose(explained_variance(jnp.full(6, 7.0), padded, weight), 0, atol=1e-5)
    half = target.mean() + 0.5 * (target - target.mean())
    np.testing.assert_allclose(explained_variance(jnp.asarray(half), padded, weight), 0.75, rtol=1e-4)
    assert explained_variance(jnp.asarray(-9 * target), padded, weight) == -1
    assert explained_variance(jnp.asarray(target), jnp.ones(6), weight) == 0


def test_explained_variance_of_several_parts_is_their_mean():
    target = jnp.asarray([[0.0, 1.0], [2.0, 5.0]])
    value = jnp.asarray([[0.0, 3.0], [2.0, 3.0]])  # perfect, and constant
    np.testing.assert_allclose(explained_variance(value, target, jnp.ones(2)), 0.5, atol=1e-6)
