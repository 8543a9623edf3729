"""Do returns run at memory bandwidth? Discounted returns and advantages over 1,000,000 slots of ragged episodes."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from memoroids.benchmarks.measurement import Measurement, copy_calls, measure
from memoroids.benchmarks.recurrence import associative_scan
from memoroids.benchmarks.timing import compile_calls
from memoroids.returns import discounted_return, gae

SLOTS, DISCOUNT, LAMBDA = 1_000_000, 0.99, 0.95


def figures(repeats: int, slots: int = SLOTS) -> Iterator[Measurement]:
    """Each against the same recursion with `lax.associative_scan` and with `lax.scan`."""
    rng = np.random.default_rng(0)
    reward, value, value_tp1 = (jnp.asarray(rng.normal(size=slots), jnp.float32) for _ in range(3))
    ends = rng.random(slots) < 0.01
    terminated = jnp.asarray(ends & (rng.random(slots) < 0.5))
    truncated = jnp.asarray(ends) & ~terminated

    def targets(reward: Any, value_tp1: Any, terminated: Any, cut: Any) -> Any:
        return reward + DISCOUNT * jnp.where(cut & ~terminated, value_tp1, 0)

    def errors(reward: Any, value: Any, value_tp1: Any, terminated: Any) -> Any:
        return reward + DISCOUNT * jnp.where(terminated, 0, value_tp1) - value

    def cuts(terminated: Any, truncated: Any) -> Any:
        return terminated | truncated | (jnp.arange(slots) == slots - 1)

    def associative(decay: float, x: Any, cut: Any) -> Any:
        return associative_scan(jnp.where(cut, 0, decay), x, reverse=True)

    def loop(decay: float, x: Any, cut: Any) -> Any:
        def step(after: Any, inputs: Any) -> tuple[Any, Any]:
            now = inputs[0] + jnp.where(inputs[1], 0, decay * after)
            return now, now

        return lax.scan(step, jnp.zeros(()), (x, cut), reverse=True)[1]

    def our_return(reward: Any, value_tp1: Any, terminated: Any, truncated: Any) -> Any:
        return discounted_return(reward, terminated, truncated, DISCOUNT, value_tp1)

    def other_return(way: Any, reward: Any, value_tp1: Any, terminated: Any, truncated: Any) -> Any:
        cut = cuts(terminated, truncated)
        return way(DISCOUNT, targets(reward, value_tp1, terminated, cut), cut)

    def our_gae(reward: Any, value: Any, value_tp1: Any, terminated: Any, truncated: Any) -> Any:
        return gae(reward, value, value_tp1, terminated, truncated, DISCOUNT, LAMBDA)

    def other_gae(way: Any, reward: Any, value: Any, value_tp1: Any, terminated: Any, truncated: Any) -> Any:
        delta = errors(reward, value, value_tp1, terminated)
        return way(DISCOUNT * LAMBDA, delta, cuts(terminated, truncated))

    cases: tuple[tuple[str, Callable[..., Any], Callable[..., Any], tuple[Any, ...]], ...] = (
        ("discounted returns", our_return, other_return, (reward, value_tp1, terminated, truncated)),
        ("generalised advantages", our_gae, other_gae, (reward, value, value_tp1, terminated, truncated)),
    )
    for name, ours, other, inputs in cases:
        ways = {"ours": ours}
        ways |= {"lax.associative_scan": partial(other, associative), "lax.scan": partial(other, loop)}
        calls, seconds = compile_calls(ways, *inputs)
        moved = sum(leaf.nbytes for leaf in inputs) + reward.nbytes
        what = f"{name}, {slots:,} slots of ragged episodes"
        yield measure(what, calls, repeats, limits=copy_calls(moved), compile=seconds)
