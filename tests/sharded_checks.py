"""One tape over four devices against slow loops; run as a program, it prints how each check went as one JSON object.

Devices have to be counted before JAX starts, so this is a process of its own; test_sharded.py starts it.
"""

import functools
import json
import traceback

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from memoroids.algebra.monoid import DenseAffine, Max, Product, Sum
from memoroids.algebra.resettable import Resettable
from memoroids.memory import REGISTRY
from memoroids.memory.sharded import sharded_linear_recurrence, sharded_memory, sharded_scan

DEVICES, LENGTH, WIDTH = 4, 16, 3
PLACE = np.arange(LENGTH)
RESETS = {
    "none": None,
    "first of a part": PLACE == 8,
    "last of a part": PLACE == 7,
    "second of a part": PLACE == 9,
    "two parts without": PLACE == 13,
    "scattered": np.isin(PLACE, (0, 3, 4, 11)),
    "every step": PLACE >= 0,
}
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


@functools.cache
def mesh():
    assert jax.device_count() == DEVICES
    return jax.make_mesh((DEVICES,), ("time",), axis_types=(AxisType.Auto,))


def along(tree):
    return jax.device_put(tree, NamedSharding(mesh(), PartitionSpec("time")))


def recurrence(decay, x, reset, initial, reverse, stack=np.stack):
    h, out = initial, {}
    for t in reversed(range(LENGTH)) if reverse else range(LENGTH):
        kept = None if reset is not None and reset[t] else (decay[t] if decay.ndim == x.ndim else decay) * h
        h = x[t] if kept is None else kept + x[t]
        out[t] = h
    return stack([out[t] for t in range(LENGTH)])


def normal(seed, *shape, dtype=np.float32):
    rng = np.random.default_rng(seed)
    value = rng.standard_normal(shape)
    if np.issubdtype(dtype, np.complexfloating):
        value = value + 1j * rng.standard_normal(shape)
    return value.astype(dtype)


def close(got, want, what):
    np.testing.assert_allclose(np.asarray(got), want, rtol=2e-4, atol=2e-4, err_msg=str(what))


@check
def scans_of_integers_are_bit_for_bit_a_loop():
    rng = np.random.default_rng(0)
    a = rng.integers(-(2**31), 2**31, (LENGTH, 2, 2)).astype(np.int32)
    x = rng.integers(-(2**31), 2**31, (LENGTH, 2)).astype(np.int32)
    first = (np.int32(3) * np.eye(2, dtype=np.int32) + 1, np.array([5, 7], np.int32))
    flags = np.isin(PLACE, (3, 8, 15))
    for reverse in (False, True):
        for start in (None, first):
            for flagged in (False, True):
                identity = (np.eye(2, dtype=np.int32), np.zeros(2, np.int32))
                value, expected = start or identity, {}
                for t in reversed(range(LENGTH)) if reverse else range(LENGTH):
                    value = identity if flagged and flags[t] else value
                    left, right = ((a[t], x[t]), value) if reverse else (value, (a[t], x[t]))
                    value = right[0] @ left[0], right[0] @ left[1] + right[1]
                    expected[t] = value
                monoid, elements, initial = DenseAffine(2, jnp.int32), (a, x), start
                if flagged:
                    monoid, elements = Resettable(monoid, reverse=reverse), (elements, flags)
                    initial = (start or identity, np.zeros((), bool))
                run = functools.partial(sharded_scan, monoid, mesh=mesh(), axis="time", reverse=reverse)
                got = jax.jit(lambda e, i, run=run: run(e, initial=i))(along(elements), initial)
                got = got[0] if flagged else got
                for part in range(2):
                    want = np.stack([expected[t][part] for t in range(LENGTH)])
                    np.testing.assert_array_equal(got[part], want, err_msg=f"{reverse} {start} {flagged}")


@check
def scans_of_sums_and_maxima_are_running_ones():
    x, y = normal(1, LENGTH, WIDTH), normal(2, LENGTH)
    got = jax.jit(lambda e: sharded_scan(Product(Sum(WIDTH), Max(())), e, mesh=mesh(), axis="time"))(along((x, y)))
    close(got[0], np.cumsum(x.astype(np.float64), 0), "sum")
    np.testing.assert_array_equal(got[1], np.maximum.accumulate(y))


@check
def gradients_of_scans_are_those_of_a_loop():
    a, x = normal(3, LENGTH, 2, 2) / 2, normal(4, LENGTH, 2)
    start = normal(5, 2, 2), normal(6, 2)

    def fast(elements, initial):
        out = sharded_scan(DenseAffine(2), elements, mesh=mesh(), axis="time", initial=initial)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in out)

    def slow(elements, value):
        total = 0.0
        for t in range(LENGTH):
            value = elements[0][t] @ value[0], elements[0][t] @ value[1] + elements[1][t]
            total += sum(jnp.sum(jnp.sin(leaf)) for leaf in value)
        return total

    got = jax.jit(jax.grad(fast, (0, 1)))(along((a, x)), start)
    with jax.enable_x64(True):
        wide = jax.tree.map(np.float64, ((a, x), start))
        want = jax.tree.map(np.asarray, jax.jit(jax.grad(slow, (0, 1)))(*wide))
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        close(g, w, "gradient")


def recurrences(dtype, varying):
    decay = normal(7, *((LENGTH, WIDTH) if varying else (WIDTH,)), dtype=dtype)
    decay = (decay / np.abs(decay) * 0.9).astype(dtype)
    x, initial, weight = (normal(8 + i, *(LENGTH, WIDTH)[i == 1 :], dtype=dtype) for i in range(3))
    wide = np.complex128 if np.issubdtype(dtype, np.complexfloating) else np.float64
    for reverse in (False, True):

        @jax.jit
        def fast(decay, x, initial, reset, reverse=reverse):
            def loss(decay, x, initial):
                h = sharded_linear_recurrence(
                    decay, x, mesh=mesh(), axis="time", reset=reset, initial=initial, reverse=reverse
                )
                return jnp.sum(jnp.real(weight * h) ** 2), h

            return jax.grad(loss, (0, 1, 2), has_aux=True)(decay, x, initial)

        def slow(decay, x, initial, reset, reverse=reverse):
            def loss(decay, x, initial):
                h = initial
                total = 0.0
                for t in reversed(range(LENGTH)) if reverse else range(LENGTH):
                    a = decay[t] if varying else decay
                    h = jnp.where(reset[t], jnp.zeros_like(h), a * h) + x[t]
                    total += jnp.sum(jnp.real(weight[t] * h) ** 2)
                return total

            return jax.grad(loss, (0, 1, 2))(decay, x, initial)

        with jax.enable_x64(True):
            slow = jax.jit(slow)
            wanted = {}
            for name, reset in RESETS.items():
                flags = np.zeros(LENGTH, bool) if reset is None else reset
                wanted[name] = jax.tree.map(np.asarray, slow(*(v.astype(wide) for v in (decay, x, initial)), flags))
        for name, reset in RESETS.items():
            gradients, h = fast(along(decay) if varying else decay, along(x), initial, reset)
            where = f"{name}, reverse {reverse}"
            close(h, recurrence(*(v.astype(wide) for v in (decay, x)), reset, initial.astype(wide), reverse), where)
            assert h.sharding.spec == PartitionSpec("time"), f"{where}: {h.sharding}"
            for argument, got, want in zip(("decay", "x", "initial"), gradients, wanted[name], strict=True):
                close(got, want, f"{where}: {argument}")


@check
def recurrences_of_one_decay_and_their_gradients_are_those_of_a_loop():
    recurrences(np.float32, varying=False)


@check
def recurrences_of_complex_numbers_are_those_of_a_loop():
    recurrences(np.complex64, varying=False)


@check
def recurrences_of_decays_in_time_are_those_of_a_loop():
    recurrences(np.float32, varying=True)


@check
def nothing_crosses_a_reset():
    decay, x, initial = normal(12, LENGTH, WIDTH), normal(13, LENGTH, WIDTH), normal(14, WIDTH)
    for cut in (6, 8):
        reset = jnp.asarray(cut == PLACE)

        @jax.jit
        def run(decay, x, initial, reset=reset, cut=cut):
            def loss(decay, x):
                h = sharded_linear_recurrence(decay, x, mesh=mesh(), axis="time", reset=reset, initial=initial)
                return jnp.sum(jnp.where((cut <= PLACE)[:, None], h**2, 0)), h

            gradients, h = jax.grad(loss, (0, 1), has_aux=True)(decay, x)
            return h, *gradients

        clean = [np.asarray(v)[cut:] for v in run(decay, x, initial)]
        for poison in (np.nan, np.inf, 3.0):
            bad = [np.where((cut > PLACE)[:, None], np.float32(poison), v) for v in (decay, x)]
            for got, want in zip(run(*bad, np.full(WIDTH, poison, np.float32)), clean, strict=True):
                np.testing.assert_array_equal(np.asarray(got)[cut:], want, err_msg=f"{poison} before {cut}")


@check
def models_are_what_they_are_on_one_device():
    begin = np.isin(PLACE, (5, 8, 15))
    for name in ("lru", "s5", "ffm", "linear_transformer", "min_gru", "hgrn"):
        sizes = {"state_size": 4} if name in ("lru", "s5", "min_gru", "hgrn") else {}
        model = REGISTRY[name](WIDTH, WIDTH, key=jax.random.key(0), **sizes)
        x, weight = normal(15, LENGTH, WIDTH), normal(16, LENGTH, WIDTH)
        state = jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), model.initial_state())

        def loss(model, call, x=x, weight=weight):
            s, after = call(model, x)
            return jnp.sum(weight * s), (s, after)

        def divided(model, x, state=state):
            return sharded_memory(model, x, begin, state, mesh=mesh(), axis="time")

        def whole(model, x, state=state):
            return model(x, jnp.asarray(begin), state)

        results = []
        for call in (divided, whole):
            grad = jax.value_and_grad(functools.partial(loss, call=call), has_aux=True)
            results.append(jax.jit(grad)(model))
        (_, (s, after)), _ = results[0]
        assert s.sharding.spec == PartitionSpec("time"), f"{name}: {s.sharding}"
        assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(after)), name
        for got, want in zip(*map(jax.tree.leaves, results), strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-4, err_msg=name)


@check
def what_does_not_fit_is_refused_in_one_line():
    gru = REGISTRY["gru"](WIDTH, WIDTH, key=jax.random.key(0))
    lru = REGISTRY["lru"](WIDTH, WIDTH, key=jax.random.key(0))
    x, begin = np.zeros((LENGTH, WIDTH), np.float32), np.zeros(LENGTH, bool)
    cases = [
        (lambda: sharded_scan(Sum(WIDTH), x[:10], mesh=mesh(), axis="time"), ValueError, "the nearest 8 or 12"),
        (lambda: sharded_scan(Sum(WIDTH), x, mesh=mesh(), axis="batch"), ValueError, "its axes are time"),
        (lambda: sharded_linear_recurrence(np.float32(0.5), x[:3], mesh=mesh(), axis="time"), ValueError, "nearest 4"),
        (lambda: sharded_memory(gru, x, begin, mesh=mesh(), axis="time"), TypeError, "GRU is not a memoroid"),
        (lambda: sharded_memory(lru, x, begin, mesh=mesh(), axis="time", backend="warp"), ValueError, "choose one of"),
    ]
    for call, kind, message in cases:
        try:
            call()
        except kind as error:
            assert message in str(error) and "\n" not in str(error), str(error)
        else:
            raise AssertionError(f"not refused: {message}")


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    report = {}
    for name, run in CHECKS.items():
        try:
            run()
            report[name] = None
        except Exception:
            report[name] = traceback.format_exc(limit=-3)
    print(json.dumps(report))
