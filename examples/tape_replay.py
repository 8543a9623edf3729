"""Replay of whole episodes on device: a ring to which episodes are added, and which is sampled as a tape."""

import jax
import numpy as np

from memoroids.replay import tape_buffer
from memoroids.tape import episode, pad

rng = np.random.default_rng(0)
buffer = tape_buffer(capacity=1_000, batch_size=64, max_length=30, min_length=5)
state = None
for _ in range(100):
    length = int(rng.integers(5, 31))
    observation = rng.normal(size=(length + 1, 3)).astype(np.float32)
    action = rng.integers(2, size=length).astype(np.int32)
    tape = pad(episode(observation, action, rng.normal(size=length), True, False), 32)  # one shape, one compilation
    state = buffer.init(tape) if state is None else state
    state = buffer.add(state, tape)  # the old state is donated; the oldest episodes are overwritten

assert state is not None
batch = buffer.sample(state, jax.random.key(0))
print(
    int(state.live), "episodes stored;", int(batch.weight.sum()), "transitions in a batch of", batch.tape.slots, "slots"
)
