"""Actions of several parts, counted through one by one: references for what never forms their product."""

import itertools

import jax.numpy as jnp
import numpy as np

from memoroids.agents.branches import Branches
from memoroids.envs.spaces import Factored

PARTS = Factored((3, 2, 4))


def joint(sizes):
    """Every action, (Π sizes, parts), in C order."""
    return np.array(list(itertools.product(*map(range, sizes))), np.int32)


def parts_of(q):
    """The numbers of each part, (…, size) each; those of plain action values are one part."""
    if not isinstance(q, Branches):
        return [q]
    ends = np.cumsum((0, *q.sizes))
    return [q.flat[..., i:j] for i, j in itertools.pairwise(ends)]


def table(logits):
    """The probability of every action, (Π sizes,), from `Branches` (Σ sizes,)."""
    total = jnp.ones(())
    for part in parts_of(logits):
        p = jnp.exp(part) / jnp.sum(jnp.exp(part))
        total = jnp.outer(total, p).ravel()
    return total


def index(sizes, action):
    """The number of an action in `joint`."""
    number = 0
    for size, option in zip(sizes, action, strict=True):
        number = number * size + option
    return number
