"""The grids of `memoroids reproduce`: files in `grids/`, and a user's choice of other tasks, memories or settings."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from memoroids.agents.agent_registry import resolve_agent
from memoroids.envs import DEVICE_PREFIX, is_atari, resolve, short_name
from memoroids.experiments.file_settings import Settings, config_of
from memoroids.experiments.grid import Cell, batching_label
from memoroids.experiments.grid_file import GridFile, axes_of, grid_cells, read_grid, task_label
from memoroids.replay.segment_buffer import SegmentState
from memoroids.runs.setting_groups import ReplaySettings
from memoroids.runs.settings import TrainConfig

FILES = {path.stem: path for path in sorted((Path(__file__).parent / "grids").glob("*.toml"))}
"""The files, by the names of figures."""
PUBLISHED = frozenset(name for name in FILES if name.startswith("figure"))
"""The figures of Morad et al. 2024; the others are ours."""
OWN_MEMORY = "popgym"
"""The grid in which each task has a memory of its own, unless memories are named; an LRU where the file names none."""
ATARI = "figure7"
"""The figure whose settings are those of Atari; those of the others are not."""
PROFILES = 20
"""Sensitivity profiles of a run whose budget the user chose."""

Scale = Literal["smoke", "laptop", "paper"]
Change = Literal["next-state", "loss"]
CHANGES: dict[Change, tuple[str, str, str]] = {
    "next-state": ("next_state", "recomputed", "next state recomputed"),
    "loss": ("loss", "huber-of-mean", "Huber of mean"),
}
"""An ablation's change to the agent: the setting, its value, and its name in figures."""


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


@functools.cache
def figure_grid(name: str, scale: Scale = "laptop") -> GridFile:
    """The grid of a figure at a scale; that of a laptop is what its file says outside the scales."""
    return read_grid(FILES[name], None if scale == "laptop" else scale)


def figure3_task() -> str:
    """The name of Figure 3's task, which has options of its own."""
    settings = figure_grid("figure3").settings
    return task_label(settings["env"], settings["env_options"])


def cells(choice: Choice) -> list[Cell]:
    """The runs of a figure's grid, seeds outermost, so that every comparison has its first results early.

    Raises `ValueError` for an unknown task or memory, for invalid settings, and if the same run would occur twice.
    """
    return grid_cells(chosen(figure_grid(choice.figure, choice.scale), choice), _label)


def chosen(grid: GridFile, choice: Choice) -> GridFile:
    """The grid of a figure with what the user chose in place of its own."""
    for name in ("tasks", "memories", "segment_lengths", "ablations"):
        asked = getattr(choice, name) or ()
        if len(set(map(_resolved, asked)) if name == "tasks" else set(asked)) < len(asked):
            raise ValueError(f"the grid contains a run twice: name each of {name} once")
    what, batching, rest = _sorted(grid)
    for name in ("seeds", "first_seed"):
        if (value := getattr(choice, name)) is not None:
            grid = dataclasses.replace(grid, **{name: value})
    if grid.seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {grid.seeds}")
    settings = {name: value for name, value in grid.settings.items() if name not in _WHAT}
    if (
        choice.steps is not None
        and resolve_agent(settings.get("algorithm", TrainConfig.algorithm)).traits.learns_from_replay
    ):
        raise ValueError(f"{choice.figure} counts episodes: use train_episodes instead of steps")
    for name in ("steps", "random_episodes", "train_episodes"):
        if (value := getattr(choice, name)) is not None:
            settings[name] = value
    if "sensitivity_every" in settings and (choice.train_episodes or choice.tasks):
        first = config_of(grid.preset, settings | _pairs(what, choice)[0], grid.first_seed)
        every, episodes = first.evaluation.eval_every or 1, first.budget.train_episodes or 0
        settings["sensitivity_every"] = max(1, episodes // PROFILES // every) * every
    zips = [_pairs(what, choice), _batchings(batching, choice)]
    if choice.ablations:
        plain = {setting: getattr(TrainConfig().agent, setting) for setting, _, _ in CHANGES.values()}
        zips.append([plain, *(plain | {CHANGES[each][0]: CHANGES[each][1]} for each in choice.ablations)])
    zips += rest
    return dataclasses.replace(grid, settings=settings, axes={}, zip=[_columns(rows) for rows in zips if rows])


_WHAT = ("env", "env_options", "memory", "memory_sizes")
_BATCHING = ("batching", "segment_length")


def _sorted(grid: GridFile) -> tuple[list[Settings], list[Settings], list[list[Settings]]]:
    """The pairs of task and memory of a grid, its batchings, and its other axes."""
    what: list[Settings] = [{name: grid.settings[name] for name in _WHAT if name in grid.settings}]
    batching: list[Settings] = []
    rest: list[list[Settings]] = []
    for axis in axes_of(grid):
        if axis[0].keys() & set(_WHAT):
            what = [one | other for one in what for other in axis]
        elif axis[0].keys() & set(_BATCHING):
            batching = axis
        else:
            rest.append(axis)
    return what, batching, rest


def _pairs(own: list[Settings], choice: Choice) -> list[Settings]:
    """The pairs of task and memory: the figure's own, or all of those that are asked for."""
    if not choice.tasks and not choice.memories:
        return own
    tasks = [{name: each[name] for name in ("env", "env_options") if name in each} for each in own]
    tasks = [task for i, task in enumerate(tasks) if task not in tasks[:i]]
    memories = choice.memories or tuple(dict.fromkeys(each["memory"] for each in own))
    if choice.tasks:
        on_device = all(task["env"].startswith(DEVICE_PREFIX) for task in tasks)
        tasks = [_task(name, on_device=on_device) for name in choice.tasks]
        for task in tasks:
            if is_atari(resolve(task["env"])) != (choice.figure == ATARI):
                other = f"use {ATARI} --tasks {task['env']}" if choice.figure != ATARI else "use another figure"
                raise ValueError(f"the settings of {choice.figure} do not fit {task['env']}: {other}")
        if choice.figure == OWN_MEMORY and not choice.memories:
            (named, *_) = _sorted(figure_grid(OWN_MEMORY))  # at a smaller scale there are fewer tasks
            best = {each["env"]: each["memory"] for each in named}
            return [task | {"memory": best.get(task["env"], "lru")} for task in tasks]
    sizes = {each["memory"]: {"memory_sizes": each["memory_sizes"]} for each in own if "memory_sizes" in each}
    return [task | {"memory": memory} | sizes.get(memory, {}) for task in tasks for memory in memories]


def _task(name: str, *, on_device: bool) -> Settings:
    """The settings of a task by the name that the user gives it: that of Figure 3, or an environment's."""
    if name == figure3_task():
        return {each: figure_grid("figure3").settings[each] for each in ("env", "env_options")}
    id_ = resolve(DEVICE_PREFIX + name if on_device and not name.startswith(DEVICE_PREFIX) else name)
    return {"env": id_ if id_.startswith(DEVICE_PREFIX) else short_name(id_)}


def _resolved(name: str) -> str:
    try:
        return resolve(name)
    except ValueError:  # it is reported where the task is made
        return name


def _batchings(own: list[Settings], choice: Choice) -> list[Settings]:
    """The batching schemes: tapes, and segments of the figure's lengths or of those that are asked for."""
    lengths = choice.segment_lengths
    if lengths is None:
        lengths = tuple(each["segment_length"] for each in own if each["batching"] == "segments")
    if not own and not lengths:
        return []
    asked = {"segment_state": choice.segment_state, "segment_count": choice.segment_count}
    plain = {name: getattr(ReplaySettings(), name) for name in asked}
    asked = {name: value for name, value in asked.items() if value != plain[name]}
    tape = own[0] if own else {"batching": "tape", "segment_length": lengths[0]}
    tape = tape | {name: plain[name] for name in asked}
    return [tape, *(tape | asked | {"batching": "segments", "segment_length": length} for length in lengths)]


def _columns(rows: Sequence[Settings]) -> dict[str, list[Any]]:
    """Rows as a table of lists. What a row lacks has the value of no change."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name, {}) for row in rows] for name in names}


def _label(config: TrainConfig) -> str:
    """What tells a run from others of its task and memory: its batching, with an ablation's change."""
    label, replay = batching_label(config), config.replay
    changes = [name for setting, value, name in CHANGES.values() if getattr(config.agent, setting, None) == value]
    stored = f" {replay.segment_state}" if replay.batching == "segments" and replay.segment_state != "zero" else ""
    return label + "".join(f" ({name})" for name in changes) + stored
