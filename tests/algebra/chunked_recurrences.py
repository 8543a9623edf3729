"""What the tests of chunked recurrences of matrices share: sizes, flags, gradients, and what may not cross a reset."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LENGTH, CHUNK, J, K = 13, 4, 3, 2
RESETS = {
    "none": [],
    "every step": range(LENGTH),
    "chunk boundaries": [4, 8, 12],
    "one before": [3, 7, 11],
    "inside, twice in one chunk": [5, 7],
}


def flags(resets) -> Any:
    return np.isin(np.arange(LENGTH), list(resets))


def weights(rng):
    return rng.standard_normal((LENGTH, K)).astype(np.float32), rng.standard_normal((J, K)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def run(function, arrays, reset, weight):
    def loss(arrays):
        out = function(**arrays, reset=reset)
        return sum(jnp.sum(o * w) for o, w in zip(out, weight, strict=True)), out

    gradient, out = jax.grad(loss, has_aux=True)(arrays)
    return out, gradient


def in_double_precision(function, arrays, reset, weight):
    with jax.enable_x64(True):
        return run(function, jax.tree.map(lambda leaf: leaf.astype(np.float64), arrays), reset, weight)


def second_derivatives(function, arrays, reset):
    def size_of_gradient(arrays):
        gradient = jax.grad(lambda a: jnp.sum(jnp.sin(function(**a, reset=reset)[0])))(arrays)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in gradient.values())

    return jax.jit(jax.grad(size_of_gradient))(arrays)


def assert_close(got, want, tolerance):
    for (path, g), w in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        scale = max(1e-30, np.abs(w).max(initial=0))
        np.testing.assert_allclose(g, w, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path))


def assert_nothing_crosses_a_reset(function, arrays, weight, poison):
    """Neither values nor gradients, in either direction, for a reset at, before and after the edge of a chunk."""
    sequences = [name for name, leaf in arrays.items() if leaf.shape[:1] == (LENGTH,)]
    for cut in (4, 6, 7):
        reset, before, after = flags([cut]), slice(cut), slice(cut, None)
        (clean, state), clean_gradient = run(function, arrays, reset, weight)
        bad = jax.tree.map(np.copy, arrays)
        bad["initial"][...] = poison
        for name in sequences:
            bad[name][before] = -poison if name == "log_decay" else poison
        (out, end), gradient = run(function, bad, reset, weight)
        np.testing.assert_array_equal(out[after], clean[after])
        np.testing.assert_array_equal(end, state)
        for name in sequences:
            np.testing.assert_array_equal(gradient[name][after], clean_gradient[name][after], err_msg=name)
        bad, bad_weight = jax.tree.map(np.copy, arrays), jax.tree.map(np.copy, weight)
        for leaf in (bad_weight[0][after], bad_weight[1], *(bad[name][after] for name in sequences)):
            leaf[...] = poison
        (out, _), gradient = run(function, bad, reset, bad_weight)
        np.testing.assert_array_equal(out[before], clean[before])
        for name in sequences:
            np.testing.assert_array_equal(gradient[name][before], clean_gradient[name][before], err_msg=name)
        np.testing.assert_array_equal(gradient["initial"], clean_gradient["initial"])


def assert_no_state_for_every_step(loss, length, size, *shapes):
    """The gradient of `loss` in arrays of `shapes` takes less memory than a third of its length in states of size²."""
    arrays = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    memory = jax.jit(jax.grad(loss, argnums=tuple(range(len(shapes))))).lower(*arrays).compile().memory_analysis()
    if memory is not None:  # some platforms do not report it
        assert memory.temp_size_in_bytes < 4 * length * size * size / 3


def assert_no_step_leaves_the_state_as_it_is(function, arrays):
    """For a sequence of no step; what is differentiated by the state before it is the state after it."""
    none = {name: leaf[:0] if leaf.shape[:1] == (LENGTH,) else leaf for name, leaf in arrays.items()}
    out, state = function(**none, reset=flags([])[:0])
    assert out.shape == (0, K)
    np.testing.assert_array_equal(state, arrays["initial"])
    gradient = jax.grad(lambda initial: jnp.sum(function(**none | {"initial": initial}, reset=flags([])[:0])[1]))
    np.testing.assert_array_equal(gradient(jnp.asarray(arrays["initial"])), np.ones((J, K)))
