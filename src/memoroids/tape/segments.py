"""Segments: episodes split into fragments of at most L transitions, each padded on its right (Segment-Based Batching).

A batch of segments is a `Tape` whose leaves have two leading axes, (segments, L + 1): a fragment of l ≤ L transitions
takes l + 1 slots, since its last observation bootstraps, and the rest is padding. Inside an episode that observation is
also the next fragment's first; `begin` is set only where the episode begins.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from memoroids.memory.memoroid import State
from memoroids.tape.tape import Tape, pad


def split(tape: Tape, length: int) -> Tape:
    """The fragments of one whole episode: a NumPy-backed `Tape` of leaves (⌈T / L⌉, L + 1, …).

    **Arguments:** `tape`, T + 1 slots of one episode; `length`, L ≥ 1. Source: Morad et al. 2024, Appendix C.

    A fragment that ends inside its episode is neither terminated nor truncated. Raises `ValueError` for `length` < 1.
    """
    if length < 1:
        raise ValueError(f"split: a segment has at least 1 transition, got length {length}")
    transitions = tape.slots - 1
    fragments = -(-transitions // length)
    padded = pad(tape, fragments * length + 1)
    slots = np.arange(fragments)[:, None] * length + np.arange(length + 1)
    rows = jax.tree.map(lambda leaf: leaf[slots], padded)
    # The slot after the last transition holds only an observation, here as at the end of an episode.
    rows.transition[:, -1] = False
    for leaf in (rows.action, rows.reward, rows.terminated, rows.truncated):
        leaf[:, -1] = 0
    return rows


def start_states(
    network: Callable[[jax.Array, jax.Array, State], tuple[Any, State]], rows: Tape, initial: State
) -> State:
    """The memory state that enters each fragment of one episode, leaves (fragments, …).

    **Arguments:** `network(observation, begin, state)` over one sequence; `rows` as made by `split`; `initial`, the
    state before the episode. What a policy that acts with these parameters carries into those steps.
    """

    def fragment(state: State, row: Tape) -> tuple[State, State]:
        # Its last observation is the next fragment's to take in.
        _, after = network(row.observation[:-1], row.begin[:-1], state)
        return after, state

    return lax.scan(fragment, initial, rows)[1]
