"""Linear attention with decay in chunks against slow loops: values, gradients, precision, and nothing across resets."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chunked_recurrences import (
    CHUNK,
    LENGTH,
    RESETS,
    J,
    K,
    assert_close,
    assert_no_state_for_every_step,
    assert_no_step_leaves_the_state_as_it_is,
    assert_nothing_crosses_a_reset,
    flags,
    in_double_precision,
    run,
    second_derivatives,
    weights,
)

from memoroids import check_monoid
from memoroids.algebra.decayed_attention import DecayedSum, decayed_attention

KINDS = {"constant": (), "a step": (LENGTH,), "a step and row": (LENGTH, J)}
each_kind = pytest.mark.parametrize("shape", KINDS.values(), ids=KINDS)


def inputs(rng, shape, strength=1.0) -> Any:
    arrays = {"query": (LENGTH, J), "key": (LENGTH, J), "value": (LENGTH, K), "initial": (J, K)}
    arrays = {name: rng.standard_normal(size).astype(np.float32) for name, size in arrays.items()}
    return arrays | {"log_decay": -np.float32(strength) * np.abs(rng.standard_normal(shape)).astype(np.float32)}


def slow(query, key, value, initial, log_decay, reset):
    """Step by step in double precision."""
    query, key, value, state, g = (np.asarray(part, np.float64) for part in (query, key, value, initial, log_decay))
    out = []
    for t in range(LENGTH):
        decay = np.exp(g if g.ndim == 0 else g[t])
        kept = np.zeros_like(state) if reset[t] else np.broadcast_to(decay, J).reshape(J, 1) * state
        state = kept + key[t].reshape(J, 1) * value[t].reshape(1, K)
        out.append((state * query[t].reshape(J, 1)).sum(0))
    return np.stack(out), state


def step_by_step(query, key, value, initial, log_decay, reset):
    """The same in JAX, for its gradient."""
    log_decay = jnp.broadcast_to(log_decay if log_decay.ndim == 2 else log_decay.reshape(-1, 1), query.shape)

    def body(state, inputs):
        q, k, v, g, begins = inputs
        state = jnp.where(begins, 0, jnp.exp(g)[:, None] * state) + jnp.outer(k, v)
        return state, state.T @ q

    state, out = jax.lax.scan(body, initial, (query, key, value, log_decay, reset))
    return out, state


chunked = functools.partial(decayed_attention, chunk=CHUNK)


@each_kind
def test_outputs_state_and_gradients_equal_the_slow_loops(shape, rng):
    # Strong decays: their gradients are far smaller than the terms from whose difference they could be computed.
    for strength in (0.1, 1.0, 10.0):
        arrays, weight = inputs(rng, shape, strength), weights(rng)
        for resets in RESETS.values():
            out, gradient = run(chunked, arrays, flags(resets), weight)
            assert_close(out, slow(**arrays, reset=flags(resets)), 1e-6)
            _, expected = in_double_precision(step_by_step, arrays, flags(resets), weight)
            assert_close(gradient, expected, 3e-6)


@each_kind
@pytest.mark.parametrize("chunk", [1, 3, 64, None])
def test_any_chunk_equals_the_slow_loop(shape, chunk, rng):
    arrays, reset = inputs(rng, shape), flags([5, 7])
    out = jax.jit(functools.partial(decayed_attention, chunk=chunk))(**arrays, reset=reset)
    assert_close(out, slow(**arrays, reset=reset), 1e-6)


@pytest.mark.parametrize("shape", [(LENGTH,), (LENGTH, J)])
def test_one_strong_decay_makes_no_other_less_accurate_and_minus_infinity_forgets(shape, rng):
    arrays, weight = inputs(rng, shape, 1e-3), weights(rng)
    for strong in (-60.0, -1e6, -1e30, -np.inf):
        arrays["log_decay"][5] = strong
        out, gradient = run(chunked, arrays, flags([]), weight)
        assert_close(out, slow(**arrays, reset=flags([])), 1e-6)
        assert all(np.isfinite(leaf).all() for leaf in gradient.values())
        # After a decay to 0 all is as after a reset, but for the gradient of that step.
        reset, from_reset = run(chunked, arrays, flags([5]), weight)
        assert_close(reset, out, 1e-6)
        assert_close(from_reset, gradient, 1e-6)


def test_second_derivatives_equal_those_of_the_steps(rng):
    arrays, reset = inputs(rng, (LENGTH, J)), flags([6])
    got, want = (second_derivatives(function, arrays, reset) for function in (chunked, step_by_step))
    assert_close(got, want, 1e-4)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
@each_kind
def test_nothing_crosses_a_reset_in_either_direction(shape, poison, rng):
    assert_nothing_crosses_a_reset(chunked, inputs(rng, shape), weights(rng), poison)


@pytest.mark.parametrize("name", ["query", "key", "value", "log_decay"])
def test_what_is_not_finite_shows_as_nan_in_its_own_episode_and_there_alone(name, rng):
    arrays, reset = inputs(rng, (LENGTH, J)), flags([2, 9])
    clean, _ = jax.jit(chunked)(**arrays, reset=reset)
    arrays[name][5, 0] = np.nan
    out, state = jax.jit(chunked)(**arrays, reset=reset)
    hit = np.isin(np.arange(LENGTH), [5] if name == "query" else range(5, 9))
    assert np.isnan(out[hit]).all() and np.isfinite(state).all()
    np.testing.assert_array_equal(out[~hit], clean[~hit])


@pytest.mark.parametrize("rows", [1, 32])
def test_the_gradient_never_holds_a_state_for_every_step(rows):
    length, size = 2048, 32

    def loss(query, key, value, log_decay):
        reset, initial = jnp.zeros(length, bool), jnp.zeros((size, size))
        return jnp.sum(decayed_attention(query, key, value, log_decay, reset=reset, initial=initial)[0])

    row = length, size
    assert_no_state_for_every_step(loss, length, size, row, row, row, row if rows > 1 else (length,))


@pytest.mark.parametrize("rowwise", [True, False])
def test_decaying_sums_are_a_monoid_whose_products_are_the_recurrence(rowwise):
    monoid = DecayedSum((2, J, K), rowwise)
    g, x = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(1), (8, *leaf.shape)), monoid.identity())
    check_monoid(monoid, (-jnp.abs(g), x), tolerance=1e-5)
    left, right = (g[0], x[0]), (g[1], x[1])
    np.testing.assert_allclose(monoid.combine(left, right)[1], np.exp(g[1])[..., None] * x[0] + x[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"key": (LENGTH, J + 1)}, "key (13, 4), value (13, 2), initial (3, 2)"),
        ({"initial": (K, J)}, "value (13, 2), initial (2, 3)"),
        ({"log_decay": (J,)}, "decayed_attention: log_decay (3,) must have shape (), (13,) or (13, 3)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changed, message, rng):
    arrays = inputs(rng, ()) | {name: np.zeros(shape, np.float32) for name, shape in changed.items()}
    with pytest.raises(ValueError, match=f"{re.escape(message)}$"):
        decayed_attention(**arrays, reset=flags([]))


@pytest.mark.parametrize("chunk", [0, 2.0])
def test_a_chunk_that_is_no_positive_integer_is_refused(chunk, rng):
    with pytest.raises(ValueError, match=f"^decayed_attention: chunk must be a positive integer, got {chunk!r}$"):
        decayed_attention(**inputs(rng, ()), reset=flags([]), chunk=chunk)


@pytest.mark.parametrize("shape", [(), (LENGTH,), (LENGTH, J)])
def test_no_step_leaves_the_state_as_it_is(shape, rng):
    assert_no_step_leaves_the_state_as_it_is(decayed_attention, inputs(rng, shape))
