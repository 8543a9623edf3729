"""The suite: the environments on which agents are developed, what their defaults should reach there, and its grid."""

import importlib.util
from dataclasses import dataclass, field
from typing import Any, Literal

from memoroids._util.messages import suggest
from memoroids.agents.agent_registry import resolve_agent
from memoroids.envs.host import development
from memoroids.experiments.grid import TAPE, Cell
from memoroids.memory.registry import resolve_memory
from memoroids.runs.presets import PRESETS
from memoroids.runs.settings import TrainConfig

NAME = "suite"
"""What `memoroids reproduce` and grid.json call it."""
STEPS = 100_000
"""Environment steps after which every environment should be above random; the budget where there is no target."""
SEEDS = 3
_BUDGET = "steps"
"""The setting that holds a budget of environment steps."""


@dataclass(frozen=True)
class Goal:
    """The return that an agent's defaults should reach, as the median over seeds, within so many environment steps."""

    algorithm: str
    target: float | None = None
    """None: none is set, and the agent should be above random."""
    steps: int = STEPS


@dataclass(frozen=True)
class SuiteTask:
    """An environment of the suite: its id and options, what agents should reach, and the memories to try."""

    env: str
    options: dict[str, Any] = field(default_factory=dict)
    goals: tuple[Goal, ...] = (Goal("ppo"),)
    memories: tuple[str, ...] = ("lru",)
    package: str | None = None
    """The package without which it is left out, as it is imported."""
    install: str = ""
    """What pip installs for that package."""

    @property
    def missing(self) -> bool:
        """Whether its package is not installed."""
        return self.package is not None and importlib.util.find_spec(self.package) is None

    def goal(self, algorithm: str) -> Goal:
        """The goal of an agent; without a target if the suite sets none for it."""
        return next((goal for goal in self.goals if goal.algorithm == algorithm), Goal(algorithm))


def _ours(factory: str) -> str:
    return f"{development.__name__}:{factory}"


_MEMORIES = ("lru", "s5", "ffm", "gru")
SUITE: dict[str, SuiteTask] = {
    "cartpole": SuiteTask(
        _ours("cartpole"), goals=(Goal("ppo", 475.0), Goal("pqn", 400.0, 150_000), Goal("dqn", 400.0, 60_000))
    ),
    "pendulum": SuiteTask(_ours("pendulum"), goals=(Goal("ppo", -250.0, 300_000),)),
    "lunar_lander": SuiteTask(_ours("lunar_lander"), package="Box2D", install="'gymnasium[box2d]'"),
    "tmaze-10": SuiteTask(_ours("tmaze"), {"length": 10}, goals=(Goal("ppo", 0.95, 200_000),), memories=_MEMORIES),
    "tmaze-50": SuiteTask(_ours("tmaze"), {"length": 50}, goals=(Goal("ppo", None, 200_000),), memories=_MEMORIES),
    "memory_s7": SuiteTask(
        "minigrid:MiniGrid-MemoryS7-v0", goals=(Goal("ppo", 0.8, 1_000_000),), package="minigrid", install="minigrid"
    ),
    "red_blue_doors": SuiteTask("minigrid:MiniGrid-RedBlueDoors-6x6-v0", package="minigrid", install="minigrid"),
    "frozen_lake": SuiteTask(_ours("frozen_lake")),
    "higher_lower": SuiteTask("popgym-HigherLowerEasy-v0"),
    "battleship": SuiteTask("popgym-BattleshipEasy-v0"),
    "concentration": SuiteTask("popgym-ConcentrationEasy-v0"),
}
"""The environments by name."""

# Enough to check that every part works, too little to learn anything.
_SMOKE_STEPS = 600
_SMOKE = {"width": 16, "num_envs": 8, "eval_every": 8, "eval_episodes": 2, "final_episodes": 4}
_SMOKE_REPLAY = {"random_episodes": 2, "batch_size": 50}


@dataclass(frozen=True)
class SuiteChoice:
    """A user's choice of the suite's runs; what is empty or None is decided by the suite."""

    figure: str = NAME
    scale: Literal["smoke", "laptop"] = "laptop"
    tasks: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()
    memories: tuple[str, ...] = ()
    seeds: int | None = None
    steps: int | None = None

    def names(self) -> tuple[str, ...]:
        """The environments that are asked for. Raises `ValueError` for an unknown one."""
        for name in self.tasks:
            if name not in SUITE:
                raise ValueError(f"unknown environment of the suite {name!r}{suggest(name, SUITE)}")
        return self.tasks or tuple(SUITE)


def suite_cells(choice: SuiteChoice) -> list[Cell]:
    """The runs of the suite, seeds outermost; environments whose package is not installed are left out.

    Raises `ValueError` for an unknown environment, agent or memory, if a run would occur twice, and if nothing is left.
    """
    names = [name for name in choice.names() if not SUITE[name].missing]
    if not names:
        needed = dict.fromkeys(SUITE[name].install for name in choice.names())
        raise ValueError(f"none of the environments is installed: pip install {' '.join(needed)}")
    found = [
        _cell(choice, name, algorithm, memory, seed)
        for seed in range(SEEDS if choice.seeds is None else choice.seeds)
        for name in names
        for algorithm in choice.algorithms or tuple(goal.algorithm for goal in SUITE[name].goals)
        for memory in choice.memories or SUITE[name].memories
    ]
    if len({cell.name for cell in found}) < len(found):
        raise ValueError("the grid contains a run twice: name each environment, agent and memory once")
    return found


def _cell(choice: SuiteChoice, name: str, algorithm: str, memory: str, seed: int) -> Cell:
    task = SUITE[name]
    resolve_memory(memory)
    values = dict[str, Any](_SMOKE) if choice.scale == "smoke" else {}
    if values and resolve_agent(algorithm).traits.learns_from_replay:
        values |= _SMOKE_REPLAY
    standard = _SMOKE_STEPS if choice.scale == "smoke" else task.goal(algorithm).steps
    values |= {"env": task.env, "env_options": task.options, "memory": memory, "algorithm": algorithm, "seed": seed}
    values |= {_BUDGET: choice.steps or standard}
    config = TrainConfig.of(preset=PRESETS[0], **values)
    slug = f"{name}-{algorithm}-{memory}-seed{seed}".replace(":", "-")
    return Cell(slug, name, memory, TAPE, seed, config)


def budget(config: TrainConfig) -> int:
    """The environment steps that a run of the suite may take."""
    return config.get(_BUDGET)
