"""How close is compiled training to the arithmetic of its updates? A whole episode with its update, on device."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from memoroids.benchmarks.measurement import Measurement
from memoroids.benchmarks.timing import compile_seconds, medians
from memoroids.benchmarks.update import matrix_program, products
from memoroids.runs.build import build_device
from memoroids.runs.device_program import Inputs, Program
from memoroids.runs.presets import MEMORIES, preset
from memoroids.runs.settings import TrainConfig

ENV = "device:RepeatFirstEasy"


def figures(repeats: int, memories: Sequence[str] = MEMORIES) -> Iterator[Measurement]:
    """With the paper's settings, an episode with its update against the update's matrix products, for each memory."""
    for memory in memories:
        row = measure(repeats, memory)
        yield Measurement(
            f"{ENV}, an episode with its update, {memory}, the paper's settings",
            row["episode"],
            {"collecting only": row["collect"]},
            {"the update's matrix products": row["matrix"]},
            {"ours": row["compile"]},
        )


def measure(repeats: int, memory: str, env: str = ENV, **changes: Any) -> dict[str, float]:
    """Seconds of an episode with its update, of an episode without update, and of the update's matrix products."""
    config = TrainConfig.of(env=env, memory=memory, **preset("paper", env, memory))
    config = config.replace(memory=memory, num_envs=10, random_episodes=10, buffer_size=100_000, **changes)
    parts = build_device(config)
    inputs = Inputs.of(parts, {})
    calls, boxes, chunk = {}, {}, np.int32(1)
    seconds = 0.0
    for name, updates in (("episode", 1), ("collect", 0)):
        made = Program.of(config.replace(updates_per_episode=updates), parts)
        state = jax.jit(made.init)(parts.agent.init(parts.network), inputs)
        took, advance = compile_seconds(jax.jit(made.advance, donate_argnums=0).lower(state, inputs, chunk))
        seconds = max(seconds, took)
        boxes[name] = [advance(state, inputs, chunk)[0]]  # the random episodes

        def call(box: list[Any] = boxes[name], advance: Any = advance) -> Any:
            box[0], stats = advance(box[0], inputs, chunk)
            return box[0].learner, stats

        calls[name] = call
    ring, state = parts.rings, boxes["episode"][0]
    assert ring is not None
    sample = jax.jit(ring.sample)(state.replay, jax.random.key(0))
    jaxpr = jax.make_jaxpr(parts.agent.update)(state.learner, sample, jax.random.key(0)).jaxpr
    matrix, operands = matrix_program(list(products(jaxpr)))
    times = medians({**calls, "matrix": lambda: matrix(operands)}, repeats)
    return {name: times[name] / config.collection.num_envs for name in calls} | {
        "matrix": times["matrix"],
        "compile": seconds,
    }
