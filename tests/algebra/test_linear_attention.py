"""Linear attention in chunks against a slow loop: values, states, gradients, and that nothing crosses a reset."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids import Stack
from memoroids.algebra.linear_attention import linear_attention
from memoroids.algebra.scan import BACKENDS
from memoroids.memory import GRU, LRU, LinearTransformer

LENGTH, CHUNK, J, K = 13, 4, 3, 2
RESETS = {
    "none": [],
    "every step": range(LENGTH),
    "first step": [0],
    "chunk boundaries": [4, 8, 12],
    "one before": [3, 7, 11],
    "one after": [5, 9],
    "inside, twice in one chunk": [5, 7],
    "random": np.flatnonzero(np.random.default_rng(3).random(LENGTH) < 0.3),
    "last step": [LENGTH - 1],
}
each_reset = pytest.mark.parametrize("resets", RESETS.values(), ids=RESETS)
attention = jax.jit(linear_attention, static_argnames="chunk")


def inputs(rng, length=LENGTH, dtype=np.float32):
    """Query, key, value and an initial state."""
    shapes = {"query": (length, J), "key": (length, J), "value": (length, K)}
    arrays = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    return arrays | {"initial": (rng.standard_normal((J, K)).astype(dtype), rng.standard_normal(J).astype(dtype))}


def flags(resets, length=LENGTH):
    return np.isin(np.arange(length), list(resets))


def weights(rng, length=LENGTH):
    """A random weight for every number in the output."""
    shapes = ((length, K), (length,), ((J, K), (J,)))
    return jax.tree.map(
        lambda s: rng.standard_normal(s).astype(np.float32), shapes, is_leaf=lambda s: not s or isinstance(s[0], int)
    )


def slow(query, key, value, reset, initial):
    """Linear attention step by step in double precision."""
    products, keys = (np.array(part, np.float64) for part in initial)
    query, key, value = (np.asarray(part, np.float64) for part in (query, key, value))
    attended, normaliser = [], []
    for t in range(len(query)):
        if reset[t]:
            products, keys = np.zeros_like(products), np.zeros_like(keys)
        products = products + key[t].reshape(-1, 1) * value[t].reshape(1, -1)
        keys = keys + key[t]
        attended.append((products * query[t].reshape(-1, 1)).sum(0))
        normaliser.append((keys * query[t]).sum())
    return np.stack(attended), np.stack(normaliser), (products, keys)


def weighted(out, weight):
    return sum((o * w).sum() for o, w in zip(jax.tree.leaves(out), jax.tree.leaves(weight), strict=True))


@functools.partial(jax.jit, static_argnames="chunk")
def run(arrays, reset, weight, chunk=CHUNK):
    """The outputs, and the gradient of their weighted sum with respect to all inputs."""

    def loss(arrays):
        out = linear_attention(**arrays, reset=reset, chunk=chunk)
        return weighted(out, weight), out

    gradient, out = jax.grad(loss, has_aux=True)(arrays)
    return out, gradient


def slow_gradient(arrays, reset, weight):
    """The gradient by differences of step 1, exact since every output is linear in each single input number."""
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda leaf: np.array(leaf, np.float64), arrays))
    gradients = [np.zeros_like(leaf) for leaf in leaves]
    for leaf, gradient in zip(leaves, gradients, strict=True):
        for at in np.ndindex(leaf.shape):
            number, sides = leaf[at], []
            for shift in (1.0, -1.0):
                leaf[at] = number + shift
                sides.append(weighted(slow(**structure.unflatten(leaves), reset=reset), weight))
            leaf[at] = number
            gradient[at] = (sides[0] - sides[1]) / 2
    return structure.unflatten(gradients)


def assert_close(got, want, tolerance=1e-5):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, g), w in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        scale = max(1.0, np.abs(w).max(initial=0))
        np.testing.assert_allclose(g, w, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path))


def assert_same_bits(got, want, message=""):
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.isfinite(np.asarray(w)).all(), message
        assert np.asarray(g).tobytes() == np.asarray(w).tobytes(), message


# --- Values, states and gradients.


@each_reset
def test_outputs_state_and_gradients_equal_the_slow_loop(resets, rng):
    arrays, reset, weight = inputs(rng), flags(resets), weights(rng)
    out, gradient = run(arrays, reset, weight)
    assert_close(out, slow(**arrays, reset=reset))
    assert_close(gradient, slow_gradient(arrays, reset, weight))


@pytest.mark.parametrize(("length", "chunk"), [(1, CHUNK), (3, CHUNK), (4, CHUNK), (8, CHUNK), (5, 1), (9, None)])
def test_any_length_and_chunk_equal_the_slow_loop(length, chunk, rng):
    arrays, weight = inputs(rng, length), weights(rng, length)
    for resets in ((), (length // 2,), (0, length - 1)):
        reset = flags(resets, length)
        out, gradient = run(arrays, reset, weight, chunk=chunk)
        assert_close(out, slow(**arrays, reset=reset))
        assert_close(gradient, slow_gradient(arrays, reset, weight))


def test_without_resets_or_state_it_is_one_episode_from_nothing(rng):
    arrays = inputs(rng) | {"initial": (np.zeros((J, K)), np.zeros(J))}
    got = attention(arrays["query"], arrays["key"], arrays["value"], chunk=CHUNK)
    assert_close(got, slow(**arrays, reset=flags([])))


def test_the_default_chunk_carries_the_state_from_chunk_to_chunk(rng):
    length = 300
    arrays, reset = inputs(rng, length), flags([10, 250], length)
    assert_close(attention(**arrays, reset=reset), slow(**arrays, reset=reset), 1e-4)


@pytest.mark.parametrize("cut", [4, 7])
def test_going_on_from_a_state_equals_the_whole(cut, rng):
    arrays = inputs(rng)
    sequence, initial = {name: arrays[name] for name in ("query", "key", "value")}, arrays["initial"]
    for resets in ((), (2, 9), (cut,)):
        reset, state, parts = flags(resets), initial, []
        for part in (slice(cut), slice(cut, None)):
            some = {name: array[part] for name, array in sequence.items()}
            *out, state = attention(**some, reset=reset[part], initial=state, chunk=CHUNK)
            parts.append(out)
        joined = [np.concatenate(pair) for pair in zip(*parts, strict=True)]
        assert_close((*joined, state), slow(**arrays, reset=reset))


def test_second_derivatives_equal_those_of_the_masked_product(rng):
    arrays, reset = inputs(rng, 6), flags([3], 6)
    episode = np.cumsum(reset)
    mask = np.tri(6, dtype=bool) & (episode[:, None] == episode[None, :])

    def chunked(query, key, value):
        return linear_attention(query, key, value, reset=reset, chunk=CHUNK)[:2]

    def product(query, key, value):
        scores = jnp.where(mask, query @ key.T, 0)
        return scores @ value, scores.sum(1)

    def twice(function):
        def size_of_gradient(*sequence):
            gradient = jax.grad(lambda *s: sum(jnp.sum(jnp.sin(o)) for o in function(*s)), argnums=(0, 1, 2))(*sequence)
            return sum(jnp.sum(jnp.square(g)) for g in gradient)

        return jax.jit(jax.grad(size_of_gradient, argnums=(0, 1, 2)))

    sequence = [arrays[name] for name in ("query", "key", "value")]
    assert_close(twice(chunked)(*sequence), twice(product)(*sequence), 1e-4)


@each_reset
def test_forward_mode_is_the_transpose_of_reverse_mode(resets, rng):
    arrays, dots, reset, weight = inputs(rng), inputs(rng), flags(resets), weights(rng)

    @jax.jit
    def tangent(arrays, dots):
        return jax.jvp(lambda arrays: linear_attention(**arrays, reset=reset, chunk=CHUNK), (arrays,), (dots,))[1]

    _, gradient = run(arrays, reset, weight)
    want = sum(np.sum(g * d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(dots), strict=True))
    np.testing.assert_allclose(weighted(tangent(arrays, dots), weight), want, rtol=1e-4, atol=1e-3)


def test_hessians_of_both_modes_are_the_same(rng):
    arrays, reset = [inputs(rng, 4)[name] for name in ("query", "key", "value")], flags([2], 4)

    def loss(*sequence):
        return sum(jnp.sum(jnp.sin(o)) for o in linear_attention(*sequence, reset=reset, chunk=3)[:2])

    def both(*sequence):
        gradient = jax.grad(loss, argnums=(0, 1, 2))
        return [mode(gradient, argnums=(0, 1, 2))(*sequence) for mode in (jax.jacfwd, jax.jacrev)]

    forward, reverse = jax.jit(both)(*arrays)
    assert_close(forward, jax.tree.map(np.asarray, reverse))


@pytest.mark.parametrize(("length", "j", "k"), [(0, J, K), (5, 0, K), (5, J, 0), (0, 0, 0)])
def test_no_steps_and_no_channels_give_empty_results_and_the_state(length, j, k, rng):
    query, key, value = (np.ones((length, n), np.float32) for n in (j, j, k))
    initial = np.ones((j, k), np.float32), np.ones(j, np.float32)
    attended, normaliser, (products, keys) = attention(query, key, value, initial=initial)
    assert_close((attended, normaliser, (products, keys)), empty_or_slow(query, key, value, initial))


def empty_or_slow(query, key, value, initial):
    if len(query):
        return slow(query, key, value, flags([], len(query)), initial)
    return np.zeros((0, value.shape[1])), np.zeros(0), initial


@pytest.mark.parametrize("name", ["query", "key", "value", "initial"])
def test_complex_arrays_are_refused_by_name(name, rng):
    arrays = inputs(rng, 3)
    arrays[name] = jax.tree.map(lambda leaf: leaf.astype(np.complex64), arrays[name])
    with pytest.raises(ValueError, match=f"^linear_attention: {name} is complex64, must be real"):
        linear_attention(**arrays)


def test_it_maps_over_a_batch(rng):
    one, two = (inputs(rng) for _ in range(2))
    resets, weight = np.stack([flags([2, 8]), flags([5])]), weights(rng)
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), one, two)
    got = jax.vmap(run, in_axes=(0, 0, None))(batch, resets, weight)
    for i, arrays in enumerate((one, two)):
        alone = run(arrays, resets[i], weight)
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], got), jax.tree.map(np.asarray, alone))


# --- Nothing crosses a reset.

POISONS = {"NaN": np.nan, "inf": np.inf, "-inf": -np.inf, "overflow": 1e30, "other values": 3.0}
PLACES = ("query", "key", "value", "initial")


def poisoned(arrays, places, rows, poison):
    arrays = jax.tree.map(np.copy, arrays)
    for place in places:
        for leaf in jax.tree.leaves(arrays[place]):
            leaf[... if place == "initial" else rows] = poison
    return arrays


def rows_of(arrays, rows):
    return [arrays[name][rows] for name in ("query", "key", "value")]


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_nothing_before_a_reset_reaches_what_comes_after(poison, rng):
    arrays, weight = inputs(rng), weights(rng)
    for cut in range(1, LENGTH):
        reset, later = flags([cut]), slice(cut, None)
        clean, clean_gradient = run(arrays, reset, weight)
        bad_weight = jax.tree.map(np.copy, weight)
        for leaf in bad_weight[:2]:
            leaf[:cut] = poison
        for places, cotangent in [*(((place,), weight) for place in PLACES), (PLACES, weight), (PLACES, bad_weight)]:
            got, gradient = run(poisoned(arrays, places, slice(cut), poison), reset, cotangent)
            message = f"{places} before {cut}"
            assert_same_bits(
                [o[later] for o in got[:2]] + [got[2]], [o[later] for o in clean[:2]] + [clean[2]], message
            )
            assert_same_bits(rows_of(gradient, later), rows_of(clean_gradient, later), message)


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_nothing_after_a_reset_reaches_what_came_before(poison, rng):
    arrays, weight = inputs(rng), weights(rng)
    for cut in range(1, LENGTH):
        reset, earlier = flags([cut]), slice(cut)
        clean, clean_gradient = run(arrays, reset, weight)
        bad_weight = jax.tree.map(np.copy, weight)
        for leaf in (*(part[cut:] for part in bad_weight[:2]), *bad_weight[2]):
            leaf[...] = poison
        got, gradient = run(poisoned(arrays, PLACES[:3], slice(cut, None), poison), reset, bad_weight)
        assert_same_bits([o[earlier] for o in got[:2]], [o[earlier] for o in clean[:2]], f"from {cut}")
        assert_same_bits(rows_of(gradient, earlier), rows_of(clean_gradient, earlier), f"from {cut}")
        assert_same_bits(gradient["initial"], clean_gradient["initial"], f"from {cut}")


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_not_finite_shows_as_nan_in_its_own_episode_and_there_alone(place, poison, rng):
    arrays, weight = inputs(rng), weights(rng)
    for resets, at in [((), 0), ((), 5), ((2, 11), 3), ((2, 11), 2), ((4, 8), 5), ((4, 8), 12), ((9,), 9)]:
        reset = flags(resets)
        episode = np.cumsum(reset)
        end = np.inf if place == "query" else next((t for t in resets if t > at), LENGTH)
        start, end = (0, next(iter(resets), LENGTH)) if place == "initial" else (at, min(end, LENGTH))
        hit = (np.arange(LENGTH) >= start) & (np.arange(LENGTH) < (start + 1 if place == "query" else end))
        clean, clean_gradient = run(arrays, reset, weight)
        bad = jax.tree.map(np.copy, arrays)
        leaf = bad["initial"][0] if place == "initial" else bad[place][at]
        leaf[..., 0] = poison
        (*out, state), gradient = run(bad, reset, weight)
        for got, want in zip(out, clean[:2], strict=True):
            assert np.isnan(got[hit]).all()
            assert_same_bits(got[~hit], want[~hit])
        if place != "query" and end == LENGTH:
            assert all(np.isnan(leaf).all() for leaf in state)
        else:
            assert_same_bits(state, clean[2])
        others = episode != (0 if place == "initial" else episode[at])
        assert_same_bits(rows_of(gradient, others), rows_of(clean_gradient, others))
        if place != "initial":
            # The output is linear in the non-finite number, so the derivatives with respect to it do not depend on it.
            shows = [name for name in PLACES[:3] if np.isnan(gradient[name][~others]).any()]
            assert shows == [name for name in PLACES[:3] if name != place]


def test_a_cotangent_that_is_not_finite_shows_in_all_it_depends_on(rng):
    arrays, reset, weight = inputs(rng), flags([2, 11]), weights(rng)
    weight[1][6] = np.nan
    _, gradient = run(arrays, reset, weight)
    assert np.flatnonzero(np.isnan(gradient["query"]).all(1)).tolist() == [6]
    assert np.flatnonzero(np.isnan(gradient["key"]).all(1)).tolist() == [2, 3, 4, 5, 6]
    assert np.isfinite(gradient["query"][np.arange(LENGTH) != 6]).all()
    assert np.isfinite(gradient["key"][flags([0, 1, *range(7, LENGTH)])]).all()


# --- Dtypes, memory and invalid arguments.


def test_float64_stays_float64(rng):
    arrays, reset = inputs(rng, dtype=np.float64), flags([2, 9])
    with jax.enable_x64(True):
        got = attention(**arrays, reset=reset, chunk=CHUNK)
        assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {np.dtype(np.float64)}
        assert_close(got, slow(**arrays, reset=reset), 1e-14)


def test_bfloat16_is_summed_in_float32(rng):
    arrays, reset, weight = inputs(rng), flags([2, 9]), weights(rng)
    narrow = {name: jnp.asarray(arrays[name], jnp.bfloat16) for name in ("query", "key", "value")}
    wide = {name: np.asarray(array, np.float32) for name, array in narrow.items()}
    initial = {"initial": arrays["initial"]}
    out, gradient = run(narrow | initial, reset, weight)
    want, want_gradient = run(wide | initial, reset, weight)
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {np.dtype(np.float32)}
    assert_same_bits(out, want)
    assert {gradient[name].dtype for name in narrow} == {np.dtype(jnp.bfloat16)}
    assert_close(jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), gradient), want_gradient, 1e-2)


def test_the_gradient_never_holds_a_state_for_every_step():
    length, size = 4096, 32
    array, weight = jax.ShapeDtypeStruct((length, size), np.float32), jax.ShapeDtypeStruct((length,), np.float32)

    def loss(query, key, value, weight):
        attended, normaliser, _ = linear_attention(query, key, value)
        return jnp.sum(attended) + jnp.sum(normaliser * weight)

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(array, array, array, weight).compile()
    memory = compiled.memory_analysis()
    if memory is None:
        pytest.skip("this platform does not report the memory use of a compiled program")
    assert memory.temp_size_in_bytes < 4 * length * size * size / 5


@pytest.mark.parametrize("chunk", [0, -1, 2.0, "4"])
def test_a_chunk_that_is_no_positive_integer_is_refused(chunk, rng):
    arrays = inputs(rng)
    with pytest.raises(ValueError, match=f"chunk must be a positive integer, got {re.escape(repr(chunk))}$"):
        linear_attention(**arrays, chunk=chunk)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query": (5, J + 1)}, "got query (5, 4), key (5, 3), value (5, 2)"),
        ({"value": (4, K)}, "got query (5, 3), key (5, 3), value (4, 2)"),
        ({"value": (5,)}, "got query (5, 3), key (5, 3), value (5,)"),
        ({"reset": (4,)}, "linear_attention: reset (4,) must have shape (5,)"),
        ({"initial": ((K, J), (J,))}, "linear_attention: initial (2, 3) and (3,) must have shapes (3, 2) and (3,)"),
        ({"initial": ((J, K), (1,))}, "linear_attention: initial (3, 2) and (1,) must have shapes (3, 2) and (3,)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changed, message):
    shapes = {"query": (5, J), "key": (5, J), "value": (5, K), "reset": (5,)} | changed
    initial = shapes.pop("initial", ((J, K), (J,)))
    arrays = {name: np.zeros(shape, bool if name == "reset" else np.float32) for name, shape in shapes.items()}
    with pytest.raises(ValueError, match=f"{re.escape(message)}$"):
        linear_attention(**arrays, initial=tuple(np.zeros(shape, np.float32) for shape in initial))


# --- The Linear Transformer, which is computed by it.


def transformer(size=4):
    return LinearTransformer(size, size, key=jax.random.key(0), key_size=3, value_size=2)


def test_the_linear_transformer_runs_in_chunks_unless_told_otherwise(rng):
    memory, x, begin = transformer(), rng.standard_normal((100, 4)).astype(np.float32), flags([30, 70], 100)
    assert memory.backends == ("chunked", *BACKENDS)
    ways = {b: jax.jit(functools.partial(memory, backend=b))(x, begin) for b in (None, "chunked", "sequential")}
    assert_same_bits(ways[None], ways["chunked"])
    assert_close(ways[None], jax.tree.map(np.asarray, ways["sequential"]), 1e-4)
    assert np.any(np.asarray(ways[None][0]) != np.asarray(ways["sequential"][0]))


def test_the_linear_transformer_names_its_backends_when_it_refuses_another(rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    message = f"LinearTransformer: unknown backend 'warp'; choose one of {', '.join(('chunked', *BACKENDS))}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        transformer()(x, flags([0], 3), backend="warp")


def test_a_stack_shares_the_backends_of_its_layers_whatever_their_names(rng):
    lru = LRU(4, 4, key=jax.random.key(1), state_size=3)
    gru = GRU(4, 4, key=jax.random.key(2))
    assert Stack([transformer(), transformer()]).backends == transformer().backends
    shared = set(BACKENDS) & set(lru.backends)
    assert "sequential" in shared and "chunked" not in shared
    assert set(Stack([transformer(), lru]).backends) == set(Stack([lru, transformer()]).backends) == shared
    mixed = Stack([transformer(), gru])
    assert mixed.backends == ("sequential",)
    x, begin = rng.standard_normal((9, 4)).astype(np.float32), flags([0, 5], 9)
    default, named = (jax.jit(functools.partial(mixed, backend=b))(x, begin) for b in (None, "sequential"))
    assert_close(default, jax.tree.map(np.asarray, named))
