"""The running deviation of advantages, against a loop over rollouts."""

import jax.numpy as jnp
import numpy as np

from memoroids.agents.advantage_spread import AdvantageSpread


def test_the_spread_is_that_of_a_loop_in_which_what_is_old_fades():
    rng, window = np.random.default_rng(0), 25
    spread, squares, count = AdvantageSpread.unknown(), 0.0, 0.0
    for size in (1.0, 0.1, 30.0, 2.0):
        advantage = rng.normal(3, size, (4, 5)).astype(np.float32)
        weight = (rng.uniform(size=(4, 5)) < 0.7).astype(np.float32)
        spread = spread.after(jnp.where(weight > 0, advantage, jnp.nan), jnp.asarray(weight), window)
        chosen = advantage[weight > 0].astype(np.float64)
        squares, count = squares + np.sum((chosen - chosen.mean()) ** 2), count + chosen.size
        np.testing.assert_allclose(spread.deviation, np.sqrt(squares / count), rtol=1e-5)
        squares, count = squares * min(1, window / count), min(count, window)
        np.testing.assert_allclose(spread.weight, count)


def test_a_rollout_that_is_not_finite_or_empty_changes_nothing():
    known = AdvantageSpread(jnp.float32(2), jnp.float32(7))
    for advantage, weight in (([jnp.inf, 1.0], [1.0, 1.0]), ([jnp.nan, 1.0], [1.0, 1.0]), ([5.0, 1.0], [0.0, 0.0])):
        after = known.after(jnp.asarray(advantage), jnp.asarray(weight), 100)
        np.testing.assert_allclose([*after], [2, 7], rtol=1e-6)
    assert AdvantageSpread.unknown().after(jnp.ones(2), jnp.zeros(2), 100).deviation == 0


def test_the_spread_scales_with_the_advantages_bit_for_bit():
    rng = np.random.default_rng(1)
    rollouts = [jnp.asarray(rng.normal(size=9), jnp.float32) for _ in range(3)]
    spreads = [AdvantageSpread.unknown(), AdvantageSpread.unknown()]
    for advantage in rollouts:
        spreads = [s.after(f * advantage, jnp.ones(9), 20) for s, f in zip(spreads, (1.0, 2.0**20), strict=True)]
    assert spreads[1].deviation == 2.0**20 * spreads[0].deviation
