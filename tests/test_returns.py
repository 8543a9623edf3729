"""Returns and advantages against slow loops: any mix of ends and final slots, NaN in every entry that is not read."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoroids import Resettable, check_monoid, scan
from memoroids.algebra.scan import BACKENDS
from memoroids.returns import Discounted, discounted_return, gae, lambda_return

each_backend = pytest.mark.parametrize("backend", BACKENDS)
returns, lambdas, advantages = (jax.jit(f, static_argnames="backend") for f in (discounted_return, lambda_return, gae))
compiled_scan = jax.jit(scan, static_argnames=("monoid", "reverse", "backend"))


# --- The slow loops. They read an entry only where a rule uses it, so the functions must ignore NaN elsewhere.


def is_last(t, transition):
    """Whether row t is the last of its arrays or the next row is not a transition."""
    return t == len(transition) - 1 or not transition[t + 1]


def slow_return(reward, terminated, truncated, discount, bootstrap, transition):
    out = np.zeros(len(reward))
    for t in reversed(range(len(reward))):
        if not transition[t]:
            continue
        if terminated[t]:
            following = 0.0
        elif truncated[t] or is_last(t, transition):
            following = bootstrap[t]
        else:
            following = out[t + 1]
        out[t] = reward[t] + discount * following
    return out


def slow_lambda_return(reward, value_tp1, terminated, truncated, discount, lambda_, transition):
    out = np.zeros(len(reward))
    for t in reversed(range(len(reward))):
        if not transition[t]:
            continue
        if terminated[t]:
            following = 0.0
        elif truncated[t] or is_last(t, transition):
            following = value_tp1[t]
        else:
            following = (1 - lambda_) * value_tp1[t] + lambda_ * out[t + 1]
        out[t] = reward[t] + discount * following
    return out


def slow_gae(reward, value, value_tp1, terminated, truncated, discount, lambda_, transition):
    out = np.zeros(len(reward))
    for t in reversed(range(len(reward))):
        if not transition[t]:
            continue
        out[t] = reward[t] + (0.0 if terminated[t] else discount * value_tp1[t]) - value[t]
        if not (terminated[t] or truncated[t] or is_last(t, transition)):
            out[t] += discount * lambda_ * out[t + 1]
    return out


# --- Any mix of flags.


@st.composite
def batches(draw):
    """Rows with any flags, with or without a mask of transitions, and random values."""
    length = draw(st.sampled_from([1, 2, 9]))
    # Fewer than half of the rows are ends, so that some sums are long; both flags may be set.
    end = st.sampled_from([(False, False)] * 3 + [(True, False), (False, True), (True, True)])
    terminated, truncated = np.array(draw(st.lists(end, min_size=length, max_size=length))).T
    is_transition = st.sampled_from([True, True, True, False])
    masks = st.lists(is_transition, min_size=length, max_size=length).map(np.array)
    transition = draw(st.none() | masks)
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    reward, value, value_tp1 = rng.standard_normal((3, length)).astype(np.float32)
    discount = draw(st.sampled_from([0.0, 0.5, 0.99, 1.0]))
    lambda_ = draw(st.sampled_from([0.0, 0.3, 0.95, 1.0]))
    return terminated, truncated, transition, reward, value, value_tp1, discount, lambda_


def hide(values, read):
    """`values`, with NaN in every entry that is not read."""
    return np.where(read, values, np.float32(np.nan))


def rows(transition, like):
    return np.ones(len(like), bool) if transition is None else transition


def assert_matches(compiled, arguments, transition, expected):
    for backend in BACKENDS:
        got = compiled(*arguments, transition=transition, backend=backend)
        assert got.shape == expected.shape and got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5, err_msg=backend)


many = settings(max_examples=150)


@many
@given(batches())
def test_discounted_return_equals_the_loop_whatever_the_flags(batch):
    terminated, truncated, transition, reward, _, value_tp1, discount, _ = batch
    row = rows(transition, reward)
    last = np.array([is_last(t, row) for t in range(len(row))])
    arguments = (
        hide(reward, row),
        terminated,
        truncated,
        discount,
        hide(value_tp1, row & ~terminated & (truncated | last)),
    )
    assert_matches(returns, arguments, transition, slow_return(*arguments, row))


@many
@given(batches())
def test_lambda_return_equals_the_loop_whatever_the_flags(batch):
    terminated, truncated, transition, reward, _, value_tp1, discount, lambda_ = batch
    row = rows(transition, reward)
    arguments = (hide(reward, row), hide(value_tp1, row & ~terminated), terminated, truncated, discount, lambda_)
    assert_matches(lambdas, arguments, transition, slow_lambda_return(*arguments, row))


@many
@given(batches())
def test_gae_equals_the_loop_whatever_the_flags(batch):
    terminated, truncated, transition, reward, value, value_tp1, discount, lambda_ = batch
    row = rows(transition, reward)
    arguments = (
        hide(reward, row),
        hide(value, row),
        hide(value_tp1, row & ~terminated),
        terminated,
        truncated,
        discount,
        lambda_,
    )
    assert_matches(advantages, arguments, transition, slow_gae(*arguments, row))


# --- By hand, with NaN in every entry that must not be read.

NAN = np.float32(np.nan)
FOUR = {
    "reward": np.array([1, 2, 3, 4], np.float32),
    "terminated": np.array([False, True, False, False]),
    "truncated": np.zeros(4, bool),
}
TAPE = {
    "reward": np.array([1, 2, NAN, 4, NAN], np.float32),
    "terminated": np.zeros(5, bool),
    "truncated": np.array([False, True, False, False, False]),
    "transition": np.array([True, True, False, True, False]),
}


@each_backend
def test_discounted_return_stops_at_a_termination_and_bootstraps_at_the_end(backend):
    got = returns(**FOUR, discount=0.5, bootstrap=np.array([NAN, NAN, NAN, 10], np.float32), backend=backend)
    np.testing.assert_array_equal(got, [2.0, 2.0, 7.5, 9.0])


@each_backend
def test_discounted_return_bootstraps_at_a_truncation_and_before_a_final_slot(backend):
    bootstrap = np.array([NAN, 8, NAN, 2, NAN], np.float32)
    got = returns(**TAPE, discount=0.5, bootstrap=bootstrap, backend=backend)
    np.testing.assert_array_equal(got, [4.0, 6.0, 0.0, 5.0, 0.0])


@each_backend
def test_where_both_flags_are_set_terminated_wins(backend):
    both = np.array([True, False])
    got = returns(np.ones(2, np.float32), both, both, 0.5, np.array([NAN, 2], np.float32), backend=backend)
    np.testing.assert_array_equal(got, [1.0, 2.0])


@each_backend
def test_gae_and_lambda_return_give_the_values_worked_out_by_hand(backend):
    value, value_tp1 = np.array([1, 2, 3, 4], np.float32), np.array([2, NAN, 4, 6], np.float32)
    advantage = advantages(**FOUR, value=value, value_tp1=value_tp1, discount=0.5, lambda_=0.5, backend=backend)
    np.testing.assert_array_equal(advantage, [1.0, 0.0, 2.75, 3.0])
    target = lambdas(**FOUR, value_tp1=value_tp1, discount=0.5, lambda_=0.5, backend=backend)
    np.testing.assert_array_equal(target, [2.0, 2.0, 5.75, 7.0])


@each_backend
def test_gae_uses_the_final_observation_at_a_truncation_and_skips_final_slots(backend):
    value, value_tp1 = np.array([1, 2, NAN, 4, NAN], np.float32), np.array([2, 8, NAN, 2, NAN], np.float32)
    got = advantages(**TAPE, value=value, value_tp1=value_tp1, discount=0.5, lambda_=1.0, backend=backend)
    # δ is 1 + 1 - 1 and 2 + 4 - 2 in the first episode, and 4 + 1 - 4 in the second.
    np.testing.assert_array_equal(got, [3.0, 4.0, 0.0, 1.0, 0.0])


def test_a_sequence_without_rows_gives_none():
    none, flags = np.zeros(0, np.float32), np.zeros(0, bool)
    for transition in (None, flags):
        assert returns(none, flags, flags, 0.9, none, transition=transition).shape == (0,)
        assert gae(none, none, none, flags, flags, 0.9, 0.9, transition=transition).shape == (0,)


# --- Identities.


def mixed(seed, length=12):
    """Values, and flags in every combination at inner rows; the last row is not an end."""
    rng = np.random.default_rng(seed)
    terminated = np.isin(np.arange(length), (2, 7))
    truncated = np.isin(np.arange(length), (4, 7, 9))
    return terminated, truncated, *rng.standard_normal((3, length)).astype(np.float32)


@each_backend
def test_lambda_of_zero_gives_one_step_targets(backend):
    terminated, truncated, reward, value, value_tp1 = mixed(0)
    one_step = reward + np.where(terminated, 0, np.float32(0.9) * value_tp1)
    got = lambdas(reward, value_tp1, terminated, truncated, 0.9, 0.0, backend=backend)
    np.testing.assert_allclose(got, one_step, rtol=1e-6)
    got = advantages(reward, value, value_tp1, terminated, truncated, 0.9, 0.0, backend=backend)
    np.testing.assert_allclose(got, one_step - value, rtol=1e-5, atol=1e-6)


@each_backend
def test_lambda_of_one_gives_the_discounted_return(backend):
    terminated, truncated, reward, _, value_tp1 = mixed(1)
    np.testing.assert_allclose(
        lambdas(reward, value_tp1, terminated, truncated, 0.9, 1.0, backend=backend),
        returns(reward, terminated, truncated, 0.9, value_tp1, backend=backend),
        rtol=1e-6,
        atol=1e-6,
    )


@each_backend
def test_gae_is_the_lambda_return_less_the_value_where_values_are_of_the_next_rows(backend):
    terminated, truncated, reward, value, value_tp1 = mixed(2)
    # The identity holds if v_{t+1} of a row is v of the next row wherever an episode continues.
    going = ~(terminated | truncated)
    value_tp1 = np.where(going, np.roll(value, -1), value_tp1)
    advantage = advantages(reward, value, value_tp1, terminated, truncated, 0.9, 0.8, backend=backend)
    target = lambdas(reward, value_tp1, terminated, truncated, 0.9, 0.8, backend=backend)
    np.testing.assert_allclose(advantage + value, target, rtol=1e-5, atol=1e-5)


@each_backend
def test_no_mask_means_that_every_row_is_a_transition(backend):
    terminated, truncated, reward, value, value_tp1 = mixed(3)
    arguments = (reward, value, value_tp1, terminated, truncated, 0.9, 0.8)
    every = np.ones(len(reward), bool)
    np.testing.assert_array_equal(
        advantages(*arguments, backend=backend), advantages(*arguments, transition=every, backend=backend)
    )


@each_backend
def test_returns_map_over_a_batch(backend):
    terminated, truncated, reward, _, value_tp1 = (np.stack(v) for v in zip(mixed(4), mixed(5), strict=True))
    terminated = np.stack((terminated[0], np.roll(terminated[1], 1)))
    mapped = jax.jit(jax.vmap(lambda *v: discounted_return(*v[:3], 0.9, v[3], backend=backend)))
    got = mapped(reward, terminated, truncated, value_tp1)
    for i in range(2):
        expected = slow_return(reward[i], terminated[i], truncated[i], 0.9, value_tp1[i], np.ones(12, bool))
        np.testing.assert_allclose(got[i], expected, rtol=1e-5, atol=1e-5)


# --- The monoid of discounted sums.


def test_discounted_is_a_monoid():
    check_monoid(Discounted())
    a, r = Discounted().combine((jnp.array(2.0), jnp.array(3.0)), (jnp.array(5.0), jnp.array(7.0)))
    assert (float(a), float(r)) == (10.0, 17.0)  # 2 · 5, and 3 + 2 · 7


@each_backend
def test_a_reversed_scan_of_discounted_is_the_return_to_go(backend):
    elements = (jnp.full(3, 0.5), jnp.array([1.0, 2.0, 3.0]))
    a, r = compiled_scan(Discounted(), elements, reverse=True, backend=backend)
    np.testing.assert_array_equal(r, [2.75, 3.5, 3.0])
    np.testing.assert_array_equal(a, [0.125, 0.25, 0.5])


@each_backend
def test_every_function_equals_a_reversed_scan_of_the_resettable_monoid(backend):
    terminated, truncated, reward, value, value_tp1 = mixed(6)
    discount, lambda_ = np.float32(0.9), np.float32(0.7)
    cut = terminated | truncated | (np.arange(len(reward)) == len(reward) - 1)
    alive = np.where(terminated, 0, discount * value_tp1)

    def by_scan(decay, x):
        elements = ((jnp.full(len(x), decay), jnp.asarray(x)), jnp.asarray(cut))
        (_, g), _ = compiled_scan(Resettable(Discounted(), reverse=True), elements, reverse=True, backend=backend)
        return g

    same = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    flags = (terminated, truncated)
    same(
        by_scan(discount, reward + np.where(cut, alive, 0)),
        returns(reward, *flags, discount, value_tp1, backend=backend),
    )
    same(
        by_scan(discount * lambda_, reward + alive * np.where(cut, 1, 1 - lambda_)),
        lambdas(reward, value_tp1, *flags, discount, lambda_, backend=backend),
    )
    same(
        by_scan(discount * lambda_, reward + alive - value),
        advantages(reward, value, value_tp1, *flags, discount, lambda_, backend=backend),
    )


# --- Gradients.

ROW = np.array([True, True, True, False, True, True, False, True])
TERMINATED = np.array([False, True, False, False, False, False, False, True])
TRUNCATED = np.array([False, False, False, False, False, True, False, True])
READ = ROW & ~TERMINATED


def gradient_cases(unread):
    """By name: a map from a function to one of its differentiable arguments, the fast and slow function, the arguments.

    Entries of the arguments that are not read are `unread`.
    """
    reward, value, value_tp1 = np.random.default_rng(8).standard_normal((3, len(ROW))).astype(np.float32)
    last = np.array([is_last(t, ROW) for t in range(len(ROW))])
    flags, gamma, lambda_ = (TERMINATED, TRUNCATED), np.float32(0.9), np.float32(0.7)
    reward, value, value_tp1 = (
        np.where(read, v, unread) for read, v in ((ROW, reward), (ROW, value), (READ, value_tp1))
    )
    return {
        "discounted_return": (
            lambda f: lambda reward, bootstrap, g: f(reward, *flags, g, bootstrap, transition=ROW),
            (discounted_return, slow_return),
            (reward, np.where(READ & (TRUNCATED | last), value_tp1, unread), gamma),
        ),
        "lambda_return": (
            lambda f: lambda reward, value_tp1, g, lam: f(reward, value_tp1, *flags, g, lam, transition=ROW),
            (lambda_return, slow_lambda_return),
            (reward, value_tp1, gamma, lambda_),
        ),
        "gae": (
            lambda f: (
                lambda reward, value, value_tp1, g, lam: f(reward, value, value_tp1, *flags, g, lam, transition=ROW)
            ),
            (gae, slow_gae),
            (reward, value, value_tp1, gamma, lambda_),
        ),
    }


@each_backend
@pytest.mark.parametrize("name", ["discounted_return", "lambda_return", "gae"])
@pytest.mark.parametrize("of", ["arrays", "discount and lambda"])
@pytest.mark.parametrize("unread", [np.float32(0), NAN], ids=["zero", "NaN"])
def test_gradients_are_finite_and_right_whatever_stands_in_what_is_not_read(name, of, unread, backend):
    bind, (fast, slow), arguments = gradient_cases(unread)[name]
    weight = np.random.default_rng(9).standard_normal(len(ROW))
    chosen = [i for i, a in enumerate(arguments) if (np.ndim(a) == 1) == (of == "arrays")]

    def loss(*arguments):
        return jnp.sum(jnp.asarray(weight, jnp.float32) * bind(functools.partial(fast, backend=backend))(*arguments))

    def slow_loss(arguments):
        return np.sum(weight * bind(slow)(*arguments))

    gradients = jax.jit(jax.grad(loss, argnums=tuple(chosen)))(*arguments)
    wide = [np.array(a, np.float64) for a in arguments]
    for i, gradient in zip(chosen, gradients, strict=True):
        expected = np.zeros(wide[i].shape)
        for at in np.ndindex(wide[i].shape):
            if np.isfinite(wide[i][at]):
                sides = []
                for shift in (1e-5, -1e-5):
                    moved = [a.copy() for a in wide]
                    moved[i][at] += shift
                    sides.append(slow_loss(moved))
                expected[at] = (sides[0] - sides[1]) / 2e-5
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4, err_msg=f"argument {i}")
