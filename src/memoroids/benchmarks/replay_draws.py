"""What does sampling a batch from the paper's largest replay buffer cost? 1,000 transitions from 4,000,000 slots."""

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import jax
import numpy as np

from memoroids.benchmarks.measurement import Measurement, copy_calls, measure
from memoroids.replay import tape_buffer
from memoroids.tape import Tape, episode

CAPACITY, BATCH, LENGTH, OBSERVATION = 4_000_000, 1_000, 51, 51


def episodes(number: int) -> Tape:
    """A tape of `number` equal episodes with the shape of RepeatFirstEasy's."""
    rng = np.random.default_rng(0)
    observation = np.eye(OBSERVATION, dtype=np.float32)[rng.integers(OBSERVATION, size=LENGTH + 1)]
    one = episode(observation, rng.integers(4, size=LENGTH).astype(np.int32), rng.normal(size=LENGTH), True, False)
    return jax.tree.map(lambda leaf: np.concatenate([np.asarray(leaf)] * number), one)


def figures(repeats: int, capacity: int = CAPACITY) -> Iterator[Measurement]:
    """Sampling a batch and adding an episode, for episodes known to have equal lengths and for unknown lengths."""
    many, one = episodes(max(1, capacity // 40 // (LENGTH + 1))), episodes(1)
    for shortest in (LENGTH, 1):
        buffer = tape_buffer(capacity, BATCH, LENGTH, min_length=shortest)
        state = buffer.init(one)
        for _ in range(41):
            state = buffer.add(state, many)
        keys = cycle([jax.random.key(i) for i in range(64)])
        batch = sum(leaf.nbytes for leaf in jax.tree.leaves(buffer.sample(state, jax.random.key(0))))
        what = f"sampling {BATCH:,} transitions from {capacity:,} slots, episodes of {shortest} to {LENGTH}"
        draw = {"ours": lambda buffer=buffer, state=state, keys=keys: buffer.sample(state, next(keys))}
        yield measure(what, draw, repeats, limits=copy_calls(2 * batch))
        box = [state]

        def add(buffer: Any = buffer, box: list[Any] = box) -> Any:
            box[0] = buffer.add(box[0], one)
            return box[0]

        moved = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(one))
        what = f"adding an episode of {LENGTH} to {capacity:,} slots, episodes of {shortest} to {LENGTH}"
        yield measure(what, {"ours": add}, repeats, limits=copy_calls(2 * moved))
