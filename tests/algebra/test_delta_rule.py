"""The delta rule in chunks against slow loops: values, gradients, precision, and nothing across resets."""

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

from memoroids.algebra.delta_rule import delta_rule

KINDS = {
    "a decay a step": ((LENGTH,), False),
    "a decay a step and row": ((LENGTH, J), False),
    "erased elsewhere": ((LENGTH,), True),
    "erased elsewhere, a decay a step and row": ((LENGTH, J), True),
}
each_kind = pytest.mark.parametrize(("shape", "elsewhere"), KINDS.values(), ids=KINDS)
chunked = functools.partial(delta_rule, chunk=CHUNK)


def inputs(rng, shape, elsewhere, strength=0.1) -> Any:
    arrays = {"query": (LENGTH, J), "key": (LENGTH, J), "value": (LENGTH, K), "read": (LENGTH, J), "initial": (J, K)}
    arrays |= {"erase": (LENGTH, J)} if elsewhere else {}
    arrays = {name: rng.standard_normal(size).astype(np.float32) for name, size in arrays.items()}
    for name in ("key", "read", "erase"):
        if name in arrays:
            arrays[name] /= np.linalg.norm(arrays[name], axis=1, keepdims=True)
    return arrays | {"log_decay": -np.float32(strength) * np.abs(rng.standard_normal(shape)).astype(np.float32)}


def slow(query, key, value, read, initial, log_decay, reset, erase=None):
    """Entry by entry, as in the papers: the value at r is read from the decayed state, taken away and written over."""
    erase = key if erase is None else erase
    state, out = np.asarray(initial, np.float64), []
    for t in range(LENGTH):
        decay = np.broadcast_to(np.exp(np.asarray(log_decay[t], np.float64)), J)
        state = np.zeros((J, K)) if reset[t] else state
        for column in range(K):
            decayed = [decay[row] * state[row, column] for row in range(J)]
            old = sum(float(read[t, row]) * decayed[row] for row in range(J))
            for row in range(J):
                new = float(key[t, row]) * float(value[t, column])
                state[row, column] = decayed[row] - float(erase[t, row]) * old + new
        out.append([sum(float(query[t, row]) * state[row, column] for row in range(J)) for column in range(K)])
        state = state.copy()
    return np.array(out), state


def step_by_step(query, key, value, read, initial, log_decay, reset, erase=None):
    """The same in JAX, for its gradient: a product with the transition's matrix at each step."""
    log_decay = jnp.broadcast_to(log_decay.reshape(LENGTH, -1), query.shape)

    def body(state, inputs):
        q, k, v, r, e, g, begins = inputs
        transition = (jnp.eye(J) - jnp.outer(e, r)) @ jnp.diag(jnp.exp(g))
        state = jnp.where(begins, 0, transition @ state) + jnp.outer(k, v)
        return state, state.T @ q

    rows = query, key, value, read, key if erase is None else erase, log_decay, reset
    state, out = jax.lax.scan(body, initial, rows)
    return out, state


@each_kind
def test_outputs_state_and_gradients_equal_the_slow_loops(shape, elsewhere, rng):
    for strength in (0.1, 1.0, 10.0):
        arrays, weight = inputs(rng, shape, elsewhere, strength), weights(rng)
        for resets in RESETS.values():
            out, gradient = run(chunked, arrays, flags(resets), weight)
            assert_close(out, slow(**arrays, reset=flags(resets)), 2e-6)
            _, expected = in_double_precision(step_by_step, arrays, flags(resets), weight)
            assert_close(gradient, expected, 5e-6)


@each_kind
@pytest.mark.parametrize("chunk", [1, 3, 64, None])
def test_any_chunk_equals_the_slow_loop(shape, elsewhere, chunk, rng):
    arrays, reset = inputs(rng, shape, elsewhere), flags([5, 7])
    out = jax.jit(functools.partial(delta_rule, chunk=chunk))(**arrays, reset=reset)
    assert_close(out, slow(**arrays, reset=reset), 2e-6)


def test_overwriting_a_key_overwrites(rng):
    keys = np.eye(J, dtype=np.float32)[[0, 1, 0, 2, 1, 0, 0, 2, 1, 0, 2, 1, 0]]
    values, zero = rng.standard_normal((LENGTH, K)).astype(np.float32), np.zeros((J, K), np.float32)
    arrays = {"value": values, "read": keys, "initial": zero, "log_decay": np.zeros(LENGTH, np.float32)}
    _, state = chunked(key=keys, query=keys, **arrays, reset=flags([]))
    np.testing.assert_allclose(state, values[[12, 11, 10]], atol=1e-6)
    out, half = chunked(key=keys / 2, query=keys, **arrays, reset=flags([]))
    np.testing.assert_allclose(out[2], (values[0] / 2 + values[2]) / 2, atol=1e-6)
    assert np.abs(half - values[[12, 11, 10]]).max() > 0.1


def test_equal_keys_for_many_steps_do_not_lose_precision(rng):
    # Powers of the system's matrix, by which it could be inverted as well, reach 10^8 here, and cancel.
    length = 64
    key = np.repeat(np.eye(J, dtype=np.float32)[:1], length, axis=0)
    value = rng.standard_normal((length, K)).astype(np.float32)
    zeros = np.zeros(length, np.float32)
    options = {"reset": zeros > 0, "initial": np.zeros((J, K), np.float32), "chunk": length}
    for rate in (0.5, 1.0, 1.875):
        out, _ = delta_rule(key, np.float32(rate) * key, value, key, zeros, **options)
        want, expected = [], np.zeros(K)
        for row in value:
            expected = (1 - rate) * expected + rate * row
            want.append(expected)
        assert_close(out, np.array(want), 1e-5)


def test_minus_infinity_forgets(rng):
    for shape in ((LENGTH,), (LENGTH, J)):
        arrays, weight = inputs(rng, shape, False), weights(rng)
        arrays["log_decay"][5] = -np.inf
        out, gradient = run(chunked, arrays, flags([]), weight)
        assert_close(out, slow(**arrays, reset=flags([5])), 2e-6)
        assert all(np.isfinite(leaf).all() for leaf in gradient.values())


def test_second_derivatives_equal_those_of_the_steps(rng):
    arrays, reset = inputs(rng, (LENGTH, J), True), flags([6])
    got, want = (second_derivatives(function, arrays, reset) for function in (chunked, step_by_step))
    assert_close(got, want, 1e-4)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
@each_kind
def test_nothing_crosses_a_reset_in_either_direction(shape, elsewhere, poison, rng):
    assert_nothing_crosses_a_reset(chunked, inputs(rng, shape, elsewhere), weights(rng), poison)


@pytest.mark.parametrize("name", ["query", "key", "value", "read", "erase", "log_decay"])
def test_what_is_not_finite_shows_as_nan_in_its_own_episode_and_there_alone(name, rng):
    arrays, reset = inputs(rng, (LENGTH, J), True), flags([2, 9])
    clean, _ = jax.jit(chunked)(**arrays, reset=reset)
    for at in (5, 7) if name == "log_decay" else (2, 5, 7):
        bad = jax.tree.map(np.copy, arrays)
        bad[name][at, 0] = np.nan
        out, state = jax.jit(chunked)(**bad, reset=reset)
        hit = np.isin(np.arange(LENGTH), [at] if name == "query" else range(at, 9))
        assert np.isnan(out[hit]).all() and np.isfinite(state).all()
        np.testing.assert_array_equal(out[~hit], clean[~hit])


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.one_in(2)
def test_the_gradient_never_holds_a_state_for_every_step(elsewhere):
    length, size = 2048, 32

    def loss(query, key, value, read, log_decay):
        reset, initial = jnp.zeros(length, bool), jnp.zeros((size, size))
        erase = key if elsewhere else None
        out, _ = delta_rule(query, key, value, read, log_decay, erase=erase, reset=reset, initial=initial)
        return jnp.sum(out)

    row = length, size
    assert_no_state_for_every_step(loss, length, size, row, row, row, row, row if elsewhere else (length,))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"key": (LENGTH, J + 1)}, "key (13, 4) must have the shape of query, (13, 3)"),
        ({"erase": (LENGTH, J + 1)}, "erase (13, 4) must have the shape of query, (13, 3)"),
        ({"initial": (K, J)}, "value (13, 2) and initial (2, 3) must have shapes (T, k) and (j, k), with T and j those "
            "of query, (13, 3)"),
        ({"log_decay": (J,)}, "log_decay (3,) must have shape (13,) or (13, 3)"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(changed, message, rng):
    arrays = inputs(rng, (LENGTH,), False) | {name: np.zeros(shape, np.float32) for name, shape in changed.items()}
    with pytest.raises(ValueError, match=f"^delta_rule: {re.escape(message)}$"):
        delta_rule(**arrays, reset=flags([]))


@pytest.mark.parametrize("chunk", [0, 2.0])
def test_a_chunk_that_is_no_positive_integer_is_refused(chunk, rng):
    with pytest.raises(ValueError, match=f"^delta_rule: chunk must be a positive integer, got {chunk!r}$"):
        delta_rule(**inputs(rng, (LENGTH,), False), reset=flags([]), chunk=chunk)


@each_kind
def test_no_step_leaves_the_state_as_it_is(shape, elsewhere, rng):
    assert_no_step_leaves_the_state_as_it_is(delta_rule, inputs(rng, shape, elsewhere))
