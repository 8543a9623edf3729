"""What does a step of an exported agent cost? Every memory at its default sizes, beside the agent itself."""

import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.benchmarks.measurement import Measurement, measure, show
from memoroids.deploy.export import check_extra, compare, write
from memoroids.deploy.pure_step import PureStep
from memoroids.memory import REGISTRY
from memoroids.runs.build import build_acting
from memoroids.runs.settings import TrainConfig
from memoroids.runs.trained_agent import TrainedAgent

EPISODES = 20
"""Episodes over which an exported agent is compared with the agent itself before it is timed."""
TASKS = {"discrete": ("CartPole-v1", "dqn"), "continuous": ("Pendulum-v1", "ppo")}
"""Kinds of action: an environment and an algorithm with such actions."""


def run(repeats: int) -> list[dict[str, Any]]:
    """Prints each measurement as soon as it is available; returns them as rows."""
    return show(figures(repeats))


def figures(repeats: int, memories: Iterable[str] = tuple(REGISTRY), **settings: Any) -> Iterator[Measurement]:
    """One step with onnxruntime, from an observation to an action, for each memory and kind of action.

    Beside it the agent itself, which translates observations as training does, and its step compiled by JAX alone. The
    parameters are those that training would begin with; what is said of bytes is the size of the model.
    """
    check_extra()
    for memory in memories:
        for kind, (env, algorithm) in TASKS.items():
            config = TrainConfig.of(env=env, algorithm=algorithm, memory=memory, **settings)
            yield _figure(f"{memory}, {kind}", config, repeats)


def _figure(name: str, config: TrainConfig, repeats: int) -> Measurement:
    from memoroids.deploy.loader import Agent  # needs the extra

    parts = build_acting(config)
    params = parts.agent.init(parts.network).params
    pure, agent = PureStep(parts, params), TrainedAgent(parts, params)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), config, pure, best=False)
        exported, size = Agent(Path(folder)), (Path(folder) / "agent.onnx").stat().st_size
    difference, steps, _ = compare(exported, agent, pure, EPISODES)
    observation = agent.observation_space.sample()
    jitted = jax.jit(lambda state, rows: pure(state, rows, jnp.zeros(())))
    rows = [np.asarray(observation, example.dtype) for example in pure.examples()]
    calls = {
        "ours": partial(exported.act, observation, 0.0),
        "the agent itself": partial(agent.act, observation, 0.0),
        "its step, compiled": partial(jitted, pure.initial, rows),
    }
    what = f"{name}: differs by {difference:.1e} in {steps} steps"
    return measure(what, calls, 20 * repeats, limits={}, bytes={"ours": size})
