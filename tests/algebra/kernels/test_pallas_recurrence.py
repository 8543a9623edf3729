"""The Pallas kernel in interpret mode against a slow loop, and its lowering for CUDA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from memoroids.algebra.kernels.pallas_recurrence import recurrence

BLOCKS = {"time_block": 10, "channel_block": 8, "ahead": 4}
each_direction = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
each_shape = pytest.mark.parametrize(
    ("dtype", "length", "width"),
    [("float32", 37, 11), ("float32", 10, 8), ("float32", 3, 1), ("complex64", 23, 3), ("bfloat16", 23, 3)],
)
each_decay = pytest.mark.parametrize("varying", [False, True], ids=["invariant", "varying"])


@functools.partial(jax.jit, static_argnames=("reverse", *BLOCKS))
def interpreted(decay, x, reset, initial, *, reverse, **blocks):
    return recurrence(decay, x, reset, initial, reverse=reverse, interpret=True, **blocks)


def loop(decay, x, reset, initial, reverse):
    """The recurrence step by step in double precision."""
    wide = np.complex128 if np.iscomplexobj(x) or np.iscomplexobj(decay) else np.float64
    decay, x, h = (np.asarray(v).astype(wide) for v in (decay, x, initial))
    out = np.empty_like(x)
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        a = decay[t] if decay.ndim == x.ndim else decay
        h = x[t] if reset is not None and reset[t] else a * h + x[t]
        out[t] = h
    return out


def assert_as_a_loop(run, decay, x, reset, initial, reverse):
    """The states of a kernel are those of the loop, in the dtype of the initial one."""
    h = run(decay, x, None if reset is None else jnp.asarray(reset), initial, reverse=reverse)
    assert h.dtype == initial.dtype
    expected = loop(decay, np.asarray(x.astype(initial.dtype)), reset, initial, reverse)
    np.testing.assert_allclose(h, expected, rtol=1e-5, atol=2e-5, err_msg=str(reset))


def case(rng, length, width, dtype, varying):
    def normal(*shape):
        value = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if dtype == "complex64" else 0)
        return value.astype("complex64" if dtype == "complex64" else "float32")

    decay = normal(length, width) if varying else normal(width)
    decay = decay / np.abs(decay) * np.float32(0.9)
    x, initial = jnp.asarray(normal(length, width)).astype(dtype), normal(width)
    return jnp.asarray(decay), x, initial


@each_direction
@each_decay
@each_shape
@pytest.mark.one_in(3)
def test_states_are_those_of_a_loop(rng, reverse, varying, dtype, length, width):
    decay, x, initial = case(rng, length, width, dtype, varying)
    place = np.arange(length)
    # At and next to the boundaries of time blocks of ten, counted from either end; at random; at every step.
    resets = (None, place == 10, place == 9, place == 26, place == 27, rng.random(length) < 0.2, place >= 0)
    for reset in resets:
        assert_as_a_loop(functools.partial(interpreted, **BLOCKS), decay, x, reset, initial, reverse)


@each_direction
@each_decay
def test_a_tape_of_so_many_blocks_that_they_are_run_in_blocks_themselves(rng, reverse, varying):
    decay, x, initial = case(rng, 93, 3, "float32", varying)
    reset = rng.random(93) < 0.02
    assert 0 < reset.sum() < 10
    h = interpreted(decay, x, jnp.asarray(reset), initial, reverse=reverse, **BLOCKS | {"time_block": 3})
    np.testing.assert_allclose(h, loop(decay, x, reset, initial, reverse), rtol=1e-5, atol=2e-5)


@each_direction
@each_decay
def test_nothing_before_a_reset_reaches_what_follows(rng, reverse, varying):
    decay, x, initial = case(rng, 37, 3, "float32", varying)
    place = np.arange(37)[::-1] if reverse else np.arange(37)
    for cut in (14, 20):
        reset, before = jnp.asarray(place == cut), (place < cut)[:, None]
        run = functools.partial(interpreted, reverse=reverse, **BLOCKS)
        clean = np.asarray(run(decay, x, reset, initial))[place >= cut]
        for poison in (np.nan, np.inf):
            bad = jnp.where(before, poison, decay) if varying else decay
            h = np.asarray(run(bad, jnp.where(before, poison, x), reset, jnp.full(3, poison, jnp.float32)))
            np.testing.assert_array_equal(h[place >= cut], clean)
            assert not np.isfinite(h[place < cut]).any()


def test_a_batch_is_one_at_a_time(rng):
    cases = [case(rng, 23, 3, "float32", False) for _ in range(2)]
    decay, x, initial = (jnp.stack([jnp.asarray(one[i]) for one in cases]) for i in range(3))
    reset = jnp.asarray(rng.random((2, 23)) < 0.2)
    run = functools.partial(interpreted, reverse=False, **BLOCKS)
    got = jax.vmap(run)(decay, x, reset, initial)
    for i in range(2):
        np.testing.assert_allclose(got[i], run(decay[i], x[i], reset[i], initial[i]), rtol=1e-6, atol=1e-6)


# JAX 0.12, which Python 3.12 and later get, deprecates the backend and needs to know the GPU that it lowers for.
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@each_decay
@pytest.mark.parametrize("dtype", ["float32", "complex64", "bfloat16"])
@pytest.mark.one_in(2)
def test_it_lowers_for_cuda(rng, dtype, varying):
    decay, x, initial = case(rng, 600, 130, dtype, varying)
    reset = jnp.zeros(600, bool)
    gpu = AbstractMesh((), (), abstract_device=AbstractDevice("NVIDIA H200", None, "gpu"))
    with use_abstract_mesh(gpu):
        traced = jax.jit(functools.partial(recurrence, reverse=True)).trace(decay, x, reset, initial)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "triton" in text
