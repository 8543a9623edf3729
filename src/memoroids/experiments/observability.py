"""What memory is worth on an environment, and what it costs on its twin that hides nothing: the runs of that grid."""

from dataclasses import dataclass
from typing import Any

from memoroids.envs import DEVICE_PREFIX, resolve, task_of
from memoroids.envs.device.tasks import DEVICE, OBSERVED_PREFIX, make_device
from memoroids.experiments.grid import TAPE, Cell
from memoroids.memory.registry import resolve_memory
from memoroids.runs.settings import TrainConfig

NAME = "gap"
"""What grid.json calls it."""
PARTIAL, TWIN = "partial", "twin"
"""The tasks of the grid: the environment, and its twin."""
WITHOUT = "mlp"
"""The memory of agents without one."""


@dataclass(frozen=True)
class GapChoice:
    """A user's choice of an environment, its twin, the memories and the budget.

    `twin`: "" for a task of POPGym on device, which has one. `steps`: environment steps of each run, None for the
    usual number.
    """

    env: str
    twin: str = ""
    figure: str = NAME
    memories: tuple[str, ...] = ("lru",)
    algorithm: str = "ppo"
    seeds: int = 3
    steps: int | None = None


def twin_of(env: str) -> str:
    """The twin of a task of POPGym on device. Raises `ValueError` for any other environment."""
    task = task_of(resolve(env))
    if not env.startswith(DEVICE_PREFIX) or task not in DEVICE:
        instead = f", or use {DEVICE_PREFIX}{task}, which has one" if task in DEVICE else ""
        raise ValueError(f"{env} has no twin of its own: name an environment that hides nothing with --twin{instead}")
    return f"{DEVICE_PREFIX}{OBSERVED_PREFIX}{task}"


def gap_cells(choice: GapChoice) -> list[Cell]:
    """The runs: each memory and none, on the environment and on its twin, seeds outermost.

    All have the defaults of the agent. Raises `ValueError` for unknown names, if the twin is the environment itself,
    and if a memory is named twice or is none.
    """
    partial = _checked(choice.env)
    envs = {PARTIAL: partial, TWIN: _checked(choice.twin or twin_of(partial))}
    if envs[PARTIAL] == envs[TWIN]:
        raise ValueError(f"the twin of {choice.env} must be another environment")
    if not choice.memories or len(set(choice.memories)) < len(choice.memories) or WITHOUT in choice.memories:
        raise ValueError(
            f"memories must be named once each, without {WITHOUT}, which is compared anyway, got "
            f"{' '.join(choice.memories) or 'none'}"
        )
    for memory in choice.memories:
        resolve_memory(memory)
    values: dict[str, Any] = {"algorithm": choice.algorithm}
    if choice.steps is not None:
        values["steps"] = choice.steps
    return [
        Cell(
            f"{task}-{memory}-seed{seed}".replace(":", "-"),
            task,
            memory,
            TAPE,
            seed,
            TrainConfig.of(preset="default", env=env, memory=memory, seed=seed, **values),
        )
        for seed in range(choice.seeds)
        for memory in (*choice.memories, WITHOUT)
        for task, env in envs.items()
    ]


def _checked(env: str) -> str:
    """The full id of an environment. Raises `ValueError` if it is unknown; on device if it cannot be made."""
    id_ = resolve(env)
    if id_.startswith(DEVICE_PREFIX):
        make_device(id_.removeprefix(DEVICE_PREFIX))
    return id_
