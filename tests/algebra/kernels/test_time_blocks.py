"""A recurrence in blocks of time, run by a slow loop over each block, against one over the whole sequence."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from test_pallas_recurrence import case, each_decay, each_direction, loop

from memoroids.algebra.kernels.time_blocks import in_time_blocks


def in_loops(asked, decay, x, start, reset, *, reverse, totals, time_block):
    """Every block by a loop of its own. `asked` notes the length of each sequence and of its blocks."""
    asked.append((len(x), time_block))
    steps, states, ends = len(x), np.zeros(x.shape, np.float32), []
    for i in range(len(start)):
        places = range(i * time_block, min((i + 1) * time_block, steps))
        at = [steps - 1 - place if reverse else place for place in places]
        its = decay[np.asarray(at)] if decay.ndim == x.ndim else decay
        h = loop(its, np.asarray(x)[at], None if reset is None else np.asarray(reset)[at], start[i], False)
        states[at] = h
        ends.append(h[-1])
    return jnp.asarray(np.stack(ends), jnp.float32) if totals else jnp.asarray(states)


@each_direction
@each_decay
@pytest.mark.parametrize(("length", "block"), [(1, 4), (4, 4), (5, 4), (23, 4), (40, 3)])
def test_the_states_are_those_of_the_whole_sequence(rng, reverse, varying, length, block):
    decay, x, initial = case(rng, length, 2, "float32", varying)
    asked: list[tuple[int, int]] = []

    def forward(decay, x, reset, initial, *, time_block, reverse=False):
        run = functools.partial(in_loops, asked, reverse=reverse)
        again = functools.partial(forward, reverse=False)
        rest = {"reverse": reverse, "time_block": time_block, "outer": lambda blocks: block, "forward": again}
        return in_time_blocks(run, decay, x, reset, initial, **rest)

    for reset in (None, jnp.asarray(rng.random(length) < 0.2)):
        h = forward(decay, x, reset, jnp.asarray(initial), time_block=block, reverse=reverse)
        expected = loop(decay, np.asarray(x), None if reset is None else np.asarray(reset), initial, reverse)
        np.testing.assert_allclose(h, expected, rtol=1e-5, atol=1e-5)
    assert len(asked) == 2 if length <= block else (-(-length // block), block) in asked
