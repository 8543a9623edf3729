"""Segments: episodes split into fragments of at most L transitions, padded on the right (Segment-Based Batching).

A batch of segments is a `Tape` whose leaves have two leading axes, (segments, L + 1). A fragment of l ≤ L transitions
takes l + 1 slots, since its value is bootstrapped from its last observation; the rest is padding. Within an episode the
last observation of a fragment is also the first of the next; `begin` is True only where the episode begins.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from memoroids.memory.memoroid import State
from memoroids.tape.tape import Tape, pad


def split(tape: Tape, length: int) -> Tape:
    """Splits one whole episode into fragments: a NumPy-backed `Tape` with leaves (⌈T / L⌉, L + 1, …).

    **Arguments:** `tape`, the T + 1 slots of one episode; `length`, L ≥ 1.

    A fragment that ends within its episode is neither terminated nor truncated. Raises `ValueError` if `length` < 1.

    Source: Morad et al. 2024, Appendix C.
    """
    if length < 1:
        raise ValueError(f"split: a segment needs at least 1 transition, got length {length}")
    transitions = tape.slots - 1
    fragments = -(-transitions // length)
    padded = pad(tape, fragments * length + 1)
    slots = np.arange(fragments)[:, None] * length + np.arange(length + 1)
    rows = jax.tree.map(lambda leaf: leaf[slots], padded)
    # The last slot of a fragment holds only an observation, like the last slot of an episode.
    rows.transition[:, -1] = False
    for leaf in (rows.action, rows.reward, rows.terminated, rows.truncated):
        leaf[:, -1] = 0
    return rows


def start_states(
    network: Callable[[jax.Array, jax.Array, State], tuple[Any, State]], rows: Tape, initial: State
) -> State:
    """The memory state at the start of each fragment of one episode, leaves (fragments, …).

    These are the states that a policy acting with the same parameters has at those steps.

    **Arguments:** `network(observation, begin, state)` over one sequence; `rows` as made by `split`; `initial`, the
    state before the episode.
    """

    def fragment(state: State, row: Tape) -> tuple[State, State]:
        # The last observation is left to the next fragment, which begins with it.
        _, after = network(row.observation[:-1], row.begin[:-1], state)
        return after, state

    return lax.scan(fragment, initial, rows)[1]
