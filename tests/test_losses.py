import jax
import jax.numpy as jnp
import numpy as np

from memoroids.losses import double_q_target, huber_of_mean, huber_td, weighted_mean


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
