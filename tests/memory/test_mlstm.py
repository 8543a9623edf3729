"""mLSTM: the laws of its stabilised monoid at extreme gates, and reads that do not depend on the stabiliser."""

import jax
import jax.numpy as jnp
import numpy as np

from memoroids import check_monoid
from memoroids.memory.mlstm import MLSTM, StabilisedSum, Stabiliser


def elements(rng, spread, heads=2, j=3, k=2):
    """Lifted steps, whose log input gates range over ± `spread`."""
    key, value = rng.standard_normal((6, heads, j)), rng.standard_normal((6, heads, k))
    log_forget, log_input = -np.abs(rng.standard_normal((6, heads))), spread * rng.standard_normal((6, heads))
    parts = log_forget, key[..., None] * value[:, :, None, :], key, log_input
    return tuple(jnp.asarray(part, jnp.float32) for part in parts)


def test_stabilised_sums_are_a_monoid_whatever_the_gates(rng):
    for spread in (1.0, 30.0, 1e4):
        lifted = elements(rng, spread)
        check_monoid(StabilisedSum(2, 3, 2), lifted, tolerance=1e-5)
        check_monoid(Stabiliser(2), (lifted[0], lifted[3]), tolerance=1e-5)


def test_products_are_the_sums_of_the_paper_at_the_scale_of_the_largest_weight(rng):
    monoid, lifted = StabilisedSum(2, 3, 2), elements(rng, 2.0)
    total = monoid.identity()
    for t in range(6):
        total = monoid.combine(total, jax.tree.map(lambda leaf, t=t: leaf[t], lifted))
    g, c, n, m = (np.asarray(part, np.float64) for part in lifted)
    # The log weight of every step at the end: its input gate and the forget gates after it.
    weight = m + np.cumsum(g[::-1], 0)[::-1] - g
    np.testing.assert_allclose(total[0], g.sum(0), rtol=1e-5)
    np.testing.assert_allclose(total[3], weight.max(0), rtol=1e-5)
    share = np.exp(weight - weight.max(0))
    np.testing.assert_allclose(total[1], (share[:, :, None, None] * c).sum(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(total[2], (share[:, :, None] * n).sum(0), rtol=1e-4, atol=1e-5)


def with_input_bias(memory, bias):
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, bias) if leaf is memory.w_i.bias else leaf, memory)


def test_input_gates_that_overflow_without_a_stabiliser_are_only_a_scale(rng):
    memory = MLSTM(3, 4, key=jax.random.key(0), heads=2, key_size=2, value_size=3)
    x, begin = rng.standard_normal((9, 3)).astype(np.float32), np.isin(np.arange(9), (0, 6))
    run = jax.jit(lambda memory, backend: memory(x, begin, backend=backend)[0], static_argnums=1)
    # Where |n · q| exceeds 1 everywhere, a common factor of all input gates cancels in the quotient.
    for backend in ("chunked", "sequential"):
        large, larger = (run(with_input_bias(memory, bias), backend) for bias in (60.0, 1000.0))
        np.testing.assert_allclose(larger, large, rtol=1e-3, atol=1e-4)
        assert np.isfinite(run(with_input_bias(memory, -1000.0), backend)).all()


def test_gradients_are_finite_at_extreme_gates(rng):
    memory = MLSTM(3, 4, key=jax.random.key(0), heads=2, key_size=2, value_size=3)
    x, begin = rng.standard_normal((5, 3)).astype(np.float32), np.arange(5) == 0
    gradient = jax.jit(jax.grad(lambda memory: jnp.sum(jnp.sin(memory(x, begin)[0]))))
    for bias in (-1000.0, 0.0, 1000.0):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(with_input_bias(memory, bias))))
