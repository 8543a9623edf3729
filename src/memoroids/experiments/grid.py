"""Grids of runs: the paper's figures as lists of cells, each a whole run with its settings."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from memoroids.envs import DEVICE_PREFIX, is_atari, resolve, short_name, task_of
from memoroids.replay.segment_buffer import SegmentState
from memoroids.runs.presets import MEMORIES, SEGMENT_LENGTHS, TASKS, preset, with_preset
from memoroids.runs.settings import TrainConfig, resolve_memory

Scale = Literal["smoke", "laptop", "paper"]
Change = Literal["next-state", "loss"]


@dataclass(frozen=True)
class Task:
    """An environment of a grid: its id, the options it is made with, and what figures call it."""

    env: str
    label: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Batching:
    """A way of batching, None for tapes or a segment length, with the changes that an ablation makes to the learner."""

    length: int | None = None
    changes: tuple[Change, ...] = ()

    @property
    def label(self) -> str:
        """What figures and tables call it, in the paper's words."""
        name = "TBB" if self.length is None else f"SBB L={self.length}"
        return name + "".join(f" {_CHANGED[change]}" for change in self.changes)


_CHANGED: dict[Change, str] = {"next-state": "(next state alone)", "loss": "(Huber of mean)"}
_SETTINGS: dict[Change, dict[str, Any]] = {
    "next-state": {"dqn.next_state": "recomputed"},
    "loss": {"dqn.loss": "huber-of-mean"},
}


@dataclass(frozen=True)
class Cell:
    """One run of a grid: where it stands, and its settings."""

    name: str
    task: str
    memory: str
    batching: str
    seed: int
    config: TrainConfig


@dataclass(frozen=True)
class FigureSpec:
    """What one of the paper's figures compares: pairs of task and memory, and ways of batching."""

    title: str
    about: str
    pairs: tuple[tuple[Task, str], ...]
    lengths: tuple[int, ...] = SEGMENT_LENGTHS
    heat: bool = False
    """Whether sensitivity is recorded during training too."""
    algorithm: Literal["dqn", "ppo", "pqn"] = "dqn"


def _task(name: str) -> Task:
    return Task(name, task_of(name))


RML_10 = Task("RepeatPreviousEasy", "RepeatPreviousEasy-k10", {"k": 10, "num_decks": 2})
"""RepeatPrevious as the paper's Figure 3 has it: the reward depends on ten observations of an episode of 104."""

FIGURES: dict[str, FigureSpec] = {
    "figure3": FigureSpec(
        "How far back values depend on observations, RepeatPrevious",
        "The reward depends on the last ten observations only. How much of the value depends on older ones?",
        tuple((RML_10, memory) for memory in MEMORIES),
        lengths=(10,),
        heat=True,
    ),
    "figure4": FigureSpec(
        "Tapes against segments",
        "The same agent and the same loss, trained on whole episodes or on zero-padded segments of them.",
        (
            (_task("CountRecallEasy"), "s5"),
            (_task("PositionOnlyCartPoleEasy"), "linear_transformer"),
            (_task("RepeatFirstEasy"), "lru"),
            (_task("RepeatPreviousEasy"), "ffm"),
        ),
    ),
    "figure5-training": FigureSpec(
        "Training time of each batching",
        "Start to finish on RepeatFirst, for tapes and for segments of each length.",
        ((_task("RepeatFirstEasy"), "lru"),),
    ),
    "figure6": FigureSpec(
        "Tapes against segments on nine tasks",
        "Four memories on the paper's nine POPGym tasks.",
        tuple((_task(task), memory) for task in TASKS for memory in MEMORIES),
    ),
    "figure7": FigureSpec(
        "Tapes against segments on Atari",
        "Pixels without frame stacking, so that the memory has to do the work.",
        (
            (_task("ALE/Asteroids-v5"), "lru"),
            (_task("ALE/Pong-v5"), "ffm"),
            (_task("ALE/Frostbite-v5"), "linear_transformer"),
        ),
        lengths=(80,),
    ),
    "figure8": FigureSpec(
        "How far back values depend on observations, RepeatFirst",
        "The reward depends on the first observation only: all sensitivity should fall on it.",
        tuple((_task("RepeatFirstEasy"), memory) for memory in MEMORIES),
        lengths=(10,),
        heat=True,
    ),
    "popgym": FigureSpec(
        "POPGym's tasks at three levels, on device",
        "PPO on tapes, against the best that POPGym's authors published (PPO, 15 million steps, the best of 13 "
        "memories).",
        tuple(
            (_task(f"{DEVICE_PREFIX}{task.removesuffix('Easy')}{level}"), "lru")
            for level in ("Easy", "Medium", "Hard")
            for task in TASKS
        ),
        lengths=(),
        algorithm="ppo",
    ),
}
"""The paper's figures that are made of training runs, by name, and one of POPGym's."""


@dataclass(frozen=True)
class Choice:
    """What a user asks of a grid; None or empty where the figure and the scale decide."""

    figure: str
    scale: Scale = "laptop"
    tasks: tuple[str, ...] = ()
    memories: tuple[str, ...] = ()
    segment_lengths: tuple[int, ...] | None = None
    segment_state: SegmentState = "zero"
    segment_count: Literal["slots", "transitions"] = "slots"
    ablations: tuple[Change, ...] = ()
    seeds: int | None = None
    random_episodes: int | None = None
    train_episodes: int | None = None


# Smoke: enough to see every part work, too little to learn anything.
_SMOKE = {"random_episodes": 20, "train_episodes": 30, "eval_episodes": 8, "final_episodes": 16, "batch_size": 500}
_SMOKE_ATARI = _SMOKE | {"random_episodes": 2, "train_episodes": 4, "eval_episodes": 2, "final_episodes": 2}
_SMOKE_ATARI |= {"width": 64, "eval_every": 2, "updates_per_episode": 1, "memory_sizes": {}, "num_envs": 2}
_SMOKE_STEPS = 200
_SMOKE_POLICY = {"train_steps": 10_000, "eval_every": 16, "eval_episodes": 8, "final_episodes": 16, "width": 16}
# As published, an update takes a laptop half a minute.
_LAPTOP_ATARI = {"random_episodes": 20, "train_episodes": 200, "eval_every": 20, "batch_size": 1_000, "width": 128}
_LAPTOP_ATARI |= {"updates_per_episode": 1, "memory_sizes": {}}
_SEEDS: dict[Scale, int] = {"smoke": 2, "laptop": 3, "paper": 10}


def cells(choice: Choice) -> list[Cell]:
    """The runs of a grid, in an order that shows all of its columns early: seeds outermost.

    Raises `ValueError` for an unknown task or memory, for settings that cannot be, and for a run that is named twice.
    """
    figure = FIGURES[choice.figure]
    smoke = choice.scale == "smoke"
    pairs = figure.pairs
    if choice.tasks:
        memories = choice.memories or tuple(dict.fromkeys(memory for _, memory in pairs))
        tasks = [RML_10 if name == RML_10.label else _task(_known(name, figure)) for name in choice.tasks]
        pairs = tuple((task, memory) for task in tasks for memory in memories)
    elif choice.memories:
        tasks = dict.fromkeys(task.label for task, _ in pairs)
        by_label = {task.label: task for task, _ in pairs}
        pairs = tuple((by_label[label], memory) for label in tasks for memory in choice.memories)
    elif smoke:
        pairs = tuple(p for p in pairs if p[0].env in ("RepeatFirstEasy", "RepeatPreviousEasy")) or pairs[:1]
        pairs = pairs[:4]
    lengths = choice.segment_lengths
    if lengths is None:
        lengths = tuple(n for n in figure.lengths if n in (10, 80, 100)) if smoke else figure.lengths
    batchings = [Batching(), *(Batching(length) for length in lengths)]
    batchings += [Batching(b.length, (change,)) for change in choice.ablations for b in tuple(batchings)]
    seeds = _SEEDS[choice.scale] if choice.seeds is None else choice.seeds
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    found = [
        _cell(choice, figure, task, memory, batching, seed)
        for seed in range(seeds)
        for task, memory in pairs
        for batching in batchings
    ]
    if len({cell.name for cell in found}) < len(found):
        raise ValueError("the grid names a run twice: give each task, memory and segment length once")
    return found


def _known(name: str, figure: FigureSpec) -> str:
    """A task's name as its environment spells it; on device where all of the figure's are."""
    on_device = all(task.env.startswith(DEVICE_PREFIX) for task, _ in figure.pairs)
    id_ = resolve(DEVICE_PREFIX + name if on_device and not name.startswith(DEVICE_PREFIX) else name)
    return id_ if id_.startswith(DEVICE_PREFIX) else short_name(id_)


def _cell(choice: Choice, figure: FigureSpec, task: Task, memory: str, batching: Batching, seed: int) -> Cell:
    resolve_memory(memory)
    env = resolve(task.env)
    name = "atari" if is_atari(env) else "paper" if choice.scale == "paper" else "tuned"
    values = preset(name, env, memory, figure.algorithm)
    options = task.options
    if choice.scale == "smoke":
        values |= _SMOKE_ATARI if name == "atari" else _SMOKE if figure.algorithm == "dqn" else _SMOKE_POLICY
        options = options | ({"max_episode_steps": _SMOKE_STEPS} if name == "atari" else {})
    elif choice.scale == "laptop" and name == "atari":
        values |= _LAPTOP_ATARI
    for field_name in ("random_episodes", "train_episodes"):
        if (asked := getattr(choice, field_name)) is not None:
            values[field_name] = asked
    for change in batching.changes:
        values |= _SETTINGS[change]
    segments: dict[str, Any] = {}
    if batching.length is not None:
        segments = {
            "batching": "segments",
            "segment_length": batching.length,
            "segment_state": choice.segment_state,
            "segment_count": choice.segment_count,
        }
    config = with_preset(TrainConfig(env=env), values)
    heat = max(1, config.train_episodes // 20 // config.eval_every) * config.eval_every if figure.heat else 0
    config = dataclasses.replace(
        config,
        env=env,
        memory=memory,
        preset=name,
        seed=seed,
        env_options=options,
        sensitivity_every=heat,
        **segments,
    )
    label = (
        batching.label
        if batching.length is None or choice.segment_state == "zero"
        else (f"{batching.label} {choice.segment_state}")
    )
    parts = (task_of(env), *(f"{k}{v}" for k, v in task.options.items()), memory, label, f"seed{seed}")
    slug = "-".join(parts)
    for old, new in ((" ", "-"), ("(", ""), (")", ""), ("=", ""), ("/", "-"), (":", "-")):
        slug = slug.replace(old, new)
    return Cell(slug, task.label, memory, label, seed, config)
