"""Grids of runs: each of the paper's figures as a list of cells, one run with its settings each."""

from dataclasses import dataclass, field
from typing import Any, Literal

from memoroids.agents.agent_registry import resolve_agent
from memoroids.envs import DEVICE_PREFIX, is_atari, resolve, short_name, task_of
from memoroids.experiments.popgym import FAMILIES, LEVELS, memory_for, split_level
from memoroids.memory.registry import REGISTRY, resolve_memory
from memoroids.replay.segment_buffer import SegmentState
from memoroids.runs.presets import MEMORIES, SEGMENT_LENGTHS, TASKS, preset
from memoroids.runs.settings import TrainConfig

Scale = Literal["smoke", "laptop", "paper"]
Change = Literal["next-state", "loss"]


@dataclass(frozen=True)
class Task:
    """An environment of a grid: its id, its options, and its name in figures."""

    env: str
    label: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Batching:
    """A batching scheme: tapes (`length` None) or segments of `length`, with an ablation's changes to the agent."""

    length: int | None = None
    changes: tuple[Change, ...] = ()

    @property
    def label(self) -> str:
        """Its name in figures and tables, in the paper's terms."""
        name = "TBB" if self.length is None else f"SBB L={self.length}"
        return name + "".join(f" {_CHANGED[change]}" for change in self.changes)


_CHANGED: dict[Change, str] = {"next-state": "(next state recomputed)", "loss": "(Huber of mean)"}
_SETTINGS: dict[Change, dict[str, Any]] = {
    "next-state": {"next_state": "recomputed"},
    "loss": {"loss": "huber-of-mean"},
}


@dataclass(frozen=True)
class Cell:
    """One run of a grid: its name, its position in the grid, and its settings."""

    name: str
    task: str
    memory: str
    batching: str
    seed: int
    config: TrainConfig


@dataclass(frozen=True)
class FigureSpec:
    """What one of the paper's figures compares: pairs of task and memory, and batching schemes."""

    title: str
    about: str
    pairs: tuple[tuple[Task, str], ...]
    lengths: tuple[int, ...] = SEGMENT_LENGTHS
    heat: bool = False
    """Whether sensitivity is also recorded during training."""
    algorithm: str = "dqn"
    defaults: bool = False
    """Whether runs have the agent's defaults, which no environment was tuned for, at every scale but smoke."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What runs have besides their preset, at every scale but smoke."""
    own_memory: bool = False
    """Whether each task has a memory of its own, unless memories are named."""
    published: bool = True
    """Whether it is a figure of Morad et al. 2024."""


def _task(name: str) -> Task:
    return Task(name, task_of(name))


RML_10 = Task("RepeatPreviousEasy", "RepeatPreviousEasy-k10", {"k": 10, "num_decks": 2})
"""RepeatPrevious as in the paper's Figure 3: the reward depends on the last ten observations, in episodes of 104."""

FIGURES: dict[str, FigureSpec] = {
    "figure3": FigureSpec(
        "How far back values depend on observations, RepeatPrevious",
        "The reward depends on the last ten observations only. How much does the value depend on older ones?",
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
        "The time of whole runs on RepeatFirst, for tapes and for segments of each length.",
        ((_task("RepeatFirstEasy"), "lru"),),
    ),
    "figure6": FigureSpec(
        "Tapes against segments on nine tasks",
        "Four memories on the paper's nine POPGym tasks.",
        tuple((_task(task), memory) for task in TASKS for memory in MEMORIES),
    ),
    "figure7": FigureSpec(
        "Tapes against segments on Atari",
        "Pixels without frame stacking, so that the agent has to use its memory.",
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
        "PPO on tapes, against the best that was published (PPO, 15 million steps).",
        tuple(
            (_task(f"{DEVICE_PREFIX}{family}{level}"), memory_for(family, level))
            for level in LEVELS
            for family in FAMILIES
        ),
        lengths=(),
        algorithm="ppo",
        own_memory=True,
        published=False,
    ),
    "memories": FigureSpec(
        "Memories at one size, on device",
        "PPO with its defaults and networks of 100,000 parameters. RepeatFirst asks for the first observation, "
        "RepeatPrevious for that of three steps ago.",
        tuple(
            (_task(f"{DEVICE_PREFIX}{task}"), name)
            for task in ("RepeatFirstEasy", "RepeatPreviousEasy")
            for name in REGISTRY
        ),
        lengths=(),
        algorithm="ppo",
        defaults=True,
        settings={"parameters": 100_000},
        published=False,
    ),
}
"""The paper's figures that need training runs, by name, a comparison with POPGym's scores, and one of all memories."""


@dataclass(frozen=True)
class Choice:
    """A user's choice of a grid; what is None or empty is decided by the figure and the scale."""

    figure: str
    scale: Scale = "laptop"
    tasks: tuple[str, ...] = ()
    memories: tuple[str, ...] = ()
    segment_lengths: tuple[int, ...] | None = None
    segment_state: SegmentState = "zero"
    segment_count: Literal["slots", "transitions"] = "slots"
    ablations: tuple[Change, ...] = ()
    seeds: int | None = None
    first_seed: int = 0
    steps: int | None = None
    random_episodes: int | None = None
    train_episodes: int | None = None


# Smoke: enough to check that every part works, too little to learn anything.
_SMOKE = {"random_episodes": 20, "train_episodes": 30, "eval_episodes": 8, "final_episodes": 16, "batch_size": 500}
_SMOKE_ATARI = _SMOKE | {"random_episodes": 2, "train_episodes": 4, "eval_episodes": 2, "final_episodes": 2}
_SMOKE_ATARI |= {"width": 64, "eval_every": 2, "updates_per_episode": 1, "memory_sizes": {}, "num_envs": 2}
_SMOKE_STEPS = 200
_SMOKE_POLICY = {"steps": 10_000, "eval_every": 16, "eval_episodes": 8, "final_episodes": 16, "width": 16}
# With the published settings an update takes half a minute on a laptop.
_LAPTOP_ATARI = {"random_episodes": 20, "train_episodes": 200, "eval_every": 20, "batch_size": 1_000, "width": 128}
_LAPTOP_ATARI |= {"updates_per_episode": 1, "memory_sizes": {}}
_SEEDS: dict[Scale, int] = {"smoke": 2, "laptop": 3, "paper": 10}


def cells(choice: Choice) -> list[Cell]:
    """The runs of a grid, seeds outermost, so that every comparison has its first results early.

    Raises `ValueError` for an unknown task or memory, for invalid settings, and if the same run would occur twice.
    """
    figure = FIGURES[choice.figure]
    smoke = choice.scale == "smoke"
    pairs = figure.pairs
    if choice.tasks:
        memories = choice.memories or tuple(dict.fromkeys(memory for _, memory in pairs))
        tasks = [RML_10 if name == RML_10.label else _task(_known(name, figure)) for name in choice.tasks]
        if figure.own_memory and not choice.memories:
            pairs = tuple((task, memory_for(*split_level(task.label))) for task in tasks)
        else:
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
        for seed in range(choice.first_seed, choice.first_seed + seeds)
        for task, memory in pairs
        for batching in batchings
    ]
    if len({cell.name for cell in found}) < len(found):
        raise ValueError("the grid contains a run twice: name each task, memory, segment length and ablation once")
    return found


def _known(name: str, figure: FigureSpec) -> str:
    """The canonical name of a task; of its device environment if all tasks of the figure run on device."""
    on_device = all(task.env.startswith(DEVICE_PREFIX) for task, _ in figure.pairs)
    id_ = resolve(DEVICE_PREFIX + name if on_device and not name.startswith(DEVICE_PREFIX) else name)
    return id_ if id_.startswith(DEVICE_PREFIX) else short_name(id_)


def _cell(choice: Choice, figure: FigureSpec, task: Task, memory: str, batching: Batching, seed: int) -> Cell:
    resolve_memory(memory)
    env = resolve(task.env)
    from_replay = resolve_agent(figure.algorithm).traits.learns_from_replay
    name = "tuned"
    if from_replay:
        name = "atari" if is_atari(env) else "paper" if choice.scale == "paper" else "tuned"
    values = preset("default" if figure.defaults else name, env, memory, figure.algorithm)
    values |= figure.settings if choice.scale != "smoke" else {}
    options = task.options
    if choice.scale == "smoke":
        values |= _SMOKE_ATARI if name == "atari" else _SMOKE if from_replay else _SMOKE_POLICY
        options = options | ({"max_episode_steps": _SMOKE_STEPS} if name == "atari" else {})
    elif choice.scale == "laptop" and name == "atari":
        values |= _LAPTOP_ATARI
    if choice.steps is not None and from_replay:
        raise ValueError(f"{choice.figure} counts episodes: use train_episodes instead of steps")
    for field_name in ("steps", "random_episodes", "train_episodes"):
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
    values |= {"env": env, "memory": memory, "algorithm": figure.algorithm, "seed": seed, "env_options": options}
    config = TrainConfig.of(**values)
    if figure.heat:
        every, episodes = config.evaluation.eval_every, config.budget.train_episodes
        assert every and episodes, "the presets of these figures count episodes"
        config = config.replace(sensitivity_every=max(1, episodes // 20 // every) * every)
    config = config.replace(**segments)
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
