"""Tapes run chunk by chunk: outputs, states and gradients of the whole tape, in memory independent of its length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arrays import normal
from memoroids import in_chunks
from memoroids.agents.networks import QNetwork
from memoroids.memory import REGISTRY, S4D, Mamba

WIDTH, LENGTH = 4, 23


def sequence(rng):
    begin = np.isin(np.arange(LENGTH), (5, 8, 16, 17))
    return jnp.asarray(normal(rng, (LENGTH, WIDTH))), jnp.asarray(begin), jnp.asarray(normal(rng, (LENGTH, WIDTH)))


def loss_and_gradients(model, x, begin, weight, chunk):
    @jax.jit
    def run(model, x, state):
        def loss(model, x, state):
            s, state = in_chunks(model, x, begin, state, chunk=chunk)
            return jnp.sum(weight * s), (s, state)

        # The initial state affects the first episode, and it is differentiable.
        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True, allow_int=True)(model, x, state)

    def changed(leaf):
        return leaf + 0.5 if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf + 2

    return run(model, x, jax.tree.map(changed, model.initial_state()))


@pytest.mark.parametrize("name", ["lru", "linear_transformer", "gtrxl", "gru"])
@pytest.mark.one_in(2)
def test_outputs_state_and_gradients_are_those_of_the_whole_tape(rng, name):
    model = REGISTRY[name](WIDTH, WIDTH, key=jax.random.key(0))
    x, begin, weight = sequence(rng)
    expected = loss_and_gradients(model, x, begin, weight, None)
    # No chunk divides the tape; with 8 and 5 a chunk starts at a begin flag, with 22 the last one has a single slot.
    for chunk in {"lru": (8, 5, 22), "gtrxl": (5,)}.get(name, (8,)):
        got = loss_and_gradients(model, x, begin, weight, chunk)
        for g, want in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            if jnp.issubdtype(want.dtype, jnp.inexact):
                np.testing.assert_allclose(g, want, rtol=2e-4, atol=2e-5, err_msg=f"chunk {chunk}")


def test_a_network_runs_its_tape_in_chunks(rng):
    whole, chunked = (
        QNetwork(WIDTH, 3, REGISTRY["lru"], key=jax.random.key(0), width=8, chunk=chunk) for chunk in (None, 7)
    )
    x, begin, _ = sequence(rng)
    (q, state), (expected, final) = (jax.jit(lambda n: n(x, begin))(n) for n in (chunked, whole))
    np.testing.assert_allclose(q, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state, final, rtol=1e-5, atol=1e-6)


def gradient_bytes(slots, chunk):
    """The temporary memory, in bytes, of the gradient of a loss over a tape; arguments and results not counted."""
    network = QNetwork(WIDTH, 3, REGISTRY["lru"], key=jax.random.key(0), width=64, chunk=chunk)

    def loss(network, x, begin):
        return jnp.sum(network(x, begin)[0] ** 2)

    x = jax.ShapeDtypeStruct((slots, WIDTH), jnp.float32), jax.ShapeDtypeStruct((slots,), bool)
    return jax.jit(jax.grad(loss)).lower(network, *x).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_with_the_chunk_and_not_with_the_tape():
    short, long = gradient_bytes(4_096, 256), gradient_bytes(32_768, 256)
    whole = gradient_bytes(32_768, 32_768)
    # Ten numbers per slot are the observation and the action values with their cotangents; all activations of the
    # network would be more than 1,000 per slot.
    assert long - short < 28_672 * 4 * 20
    assert whole > 8 * long


def test_a_chunk_below_one_is_refused():
    model = REGISTRY["lru"](WIDTH, WIDTH, key=jax.random.key(0))
    message = "chunk must be at least 1 slot, or None for the default of 16,384; got 0"
    with pytest.raises(ValueError, match=f"^{message}$"):
        in_chunks(model, jnp.zeros((3, WIDTH)), jnp.zeros(3, bool), chunk=0)
    with pytest.raises(ValueError, match=message):
        QNetwork(WIDTH, 3, REGISTRY["lru"], key=jax.random.key(0), chunk=0)


@pytest.mark.parametrize("name", ["s4d", "mamba"])
def test_models_with_large_states_compute_long_sequences_in_chunks_with_the_same_results(name, rng, monkeypatch):
    x, begin = rng.standard_normal((11, 3)).astype(np.float32), np.isin(np.arange(11), [0, 3, 7])
    memory = REGISTRY[name](3, 4, key=jax.random.key(0), layers=1, state_size=2)

    def outcome():
        def loss(memory, x):
            s, state = memory(x, begin)
            return jnp.sum(jnp.sin(s)), (s, state)

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(memory, x)

    def scans():
        return str(jax.make_jaxpr(lambda x: memory(x, begin)[0])(x)).count("scan[")

    whole, before = outcome(), scans()
    monkeypatch.setattr({"mamba": Mamba, "s4d": S4D}[name], "chunk", 4)
    assert scans() > before
    for a, b in zip(jax.tree.leaves(outcome()), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
