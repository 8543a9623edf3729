"""The Mosaic kernel in interpret mode against a slow loop, its gradient, and its lowering for CUDA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from test_pallas_recurrence import assert_as_a_loop, case, each_decay, each_direction, each_shape

from memoroids.algebra import recurrence_backends
from memoroids.algebra.kernels import mosaic_recurrence
from memoroids.algebra.kernels.mosaic_recurrence import recurrence
from memoroids.algebra.linear_recurrence import linear_recurrence

# JAX simulates shared memory and barriers of a GPU, so far for its own tests.
InterpretGPUParams = pytest.importorskip("jax._src.pallas.mosaic_gpu.interpret.params").InterpretGPUParams
SIMULATED = InterpretGPUParams(detect_races=True)
BLOCKS = {"time_block": 10, "lanes": 8}


@functools.partial(jax.jit, static_argnames=("reverse", *BLOCKS))
def interpreted(decay, x, reset, initial, *, reverse, **blocks):
    return recurrence(decay, x, reset, initial, reverse=reverse, interpret=SIMULATED, **blocks)


@each_direction
@each_decay
@each_shape
@pytest.mark.one_in(3)
def test_states_are_those_of_a_loop(rng, reverse, varying, dtype, length, width):
    decay, x, initial = case(rng, length, width, dtype, varying)
    place = np.arange(length)
    for reset in (None, place == 10, place == 26, rng.random(length) < 0.2, place >= 0):
        assert_as_a_loop(functools.partial(interpreted, **BLOCKS), decay, x, reset, initial, reverse)


@each_direction
def test_nothing_before_a_reset_reaches_what_follows(rng, reverse):
    decay, x, initial = case(rng, 37, 3, "float32", True)
    place = np.arange(37)[::-1] if reverse else np.arange(37)
    reset, before = jnp.asarray(place == 14), (place < 14)[:, None]
    run = functools.partial(interpreted, reverse=reverse, **BLOCKS)
    clean = np.asarray(run(decay, x, reset, initial))[place >= 14]
    bad = jnp.where(before, np.nan, decay), jnp.where(before, np.nan, x)
    h = np.asarray(run(*bad, reset, jnp.full(3, np.nan, jnp.float32)))
    np.testing.assert_array_equal(h[place >= 14], clean)
    assert not np.isfinite(h[place < 14]).any()


def test_mapped_axes_are_one_at_a_time_whatever_is_mapped(rng):
    decay, x, initial = case(rng, 23, 3, "float32", False)
    several = jnp.stack([x, 2 * x, x[::-1]])
    reset = jnp.asarray(rng.random((2, 23)) < 0.2)
    run = functools.partial(interpreted, reverse=False, **BLOCKS)
    got = jax.vmap(jax.vmap(run, (None, 0, None, None)), (None, None, 0, None))(decay, several, reset, initial)
    for i in range(2):
        for j in range(3):
            expected = run(decay, several[j], reset[i], initial)
            np.testing.assert_allclose(got[i, j], expected, rtol=1e-6, atol=1e-6)


@each_decay
def test_its_gradient_is_that_of_the_sequential_backend(rng, varying, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recurrence_backends, "unavailable_reason", lambda backend: None)
    small = functools.partial(recurrence, interpret=SIMULATED, **BLOCKS)
    monkeypatch.setattr(mosaic_recurrence, "recurrence", small)
    decay, x, initial = case(rng, 23, 3, "float32", varying)
    reset = jnp.asarray(rng.random(23) < 0.2)

    def loss(backend, decay, x, initial):
        return jnp.sum(jnp.square(linear_recurrence(decay, x, reset=reset, initial=initial, backend=backend)))

    found, wanted = (
        jax.jit(jax.grad(functools.partial(loss, backend), argnums=(0, 1, 2)))(decay, x, jnp.asarray(initial))
        for backend in ("mosaic", "sequential")
    )
    for got, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@each_decay
@pytest.mark.parametrize("dtype", ["float32", "complex64", "bfloat16"])
@pytest.mark.one_in(2)
def test_it_lowers_for_cuda_alone_and_mapped(rng, dtype, varying):
    decay, x, initial = case(rng, 600, 130, dtype, varying)
    one = decay, x, jnp.zeros(600, bool), jnp.asarray(initial)
    run = functools.partial(recurrence, reverse=True)
    for function, arguments in ((run, one), (jax.vmap(run), jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), one))):
        text = export.export(jax.jit(function), platforms=["cuda"])(*arguments).mlir_module()
        assert "mosaic_gpu" in text
