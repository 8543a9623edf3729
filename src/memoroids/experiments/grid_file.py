"""Grids in TOML files: the settings that all runs share, axes, cells to leave out, and scales."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memoroids._util.toml_tables import check_kinds, read_toml, with_dots
from memoroids.envs import task_of
from memoroids.experiments.file_settings import Settings, check_places, config_of
from memoroids.experiments.grid import Cell, batching_label
from memoroids.runs.presets import PRESETS
from memoroids.runs.settings import PREFIXED, TrainConfig
from memoroids.runs.settings_file import to_json

NAME = "grid"
MAX_CELLS = 10_000
"""More runs than anybody waits for: a grid of more is taken for a mistake."""
MAX_NAME = 160
"""Characters of a cell's name, which is that of its directory."""


@dataclass(frozen=True)
class GridFile:
    """What a grid file says.

    `axes`: all combinations of their values are run. `zip`: tables of lists of the same length, whose first values
    belong together, then the second ones, and so on; each is an axis. `exclude`: a cell is left out if it has all the
    values of one of these tables. `seeds`, `first_seed`: every cell is run with so many seeds, from the first one on.
    `scale`: the scale that it was read at, "" for that of the file itself.
    """

    title: str
    about: str = ""
    preset: str = PRESETS[0]
    seeds: int = 3
    first_seed: int = 0
    settings: Settings = field(default_factory=dict)
    axes: dict[str, list[Any]] = field(default_factory=dict)
    zip: list[dict[str, list[Any]]] = field(default_factory=list)
    exclude: list[Settings] = field(default_factory=list)
    scale: str = ""
    figure: str = NAME


def read_grid(path: Path, scale: str | None = None) -> GridFile:
    """Reads a grid file, at one of its scales if one is named: with what that scale says in place of the file's own.

    Raises `ValueError`, naming the file, for one that is not valid TOML or not a grid, and if it has no such scale.
    """
    return read_toml(path, _KEYS | {"scale": dict}, lambda values: _at_scale({"title": path.stem} | values, scale))


_KEYS = {"title": str, "about": str, "preset": str, "seeds": int, "first_seed": int, "settings": dict}
_KEYS |= {"axes": dict, "zip": list, "exclude": list}


def _at_scale(values: dict[str, Any], scale: str | None) -> GridFile:
    """The grid of a file at a scale. All of its scales are checked."""
    scales = values.pop("scale", {})
    if scale is not None and scale not in scales:
        have = f"it has {', '.join(scales)}" if scales else "it has none"
        raise ValueError(f"there is no scale {scale!r}: {have}")
    found: dict[str | None, GridFile] = {None: _checked(values)}
    for name, changes in scales.items():
        try:
            if not isinstance(changes, dict):
                raise ValueError(f"must be a table, got {changes!r}")
            check_kinds(changes, _KEYS)
            found[name] = _checked(values | changes | {"scale": name})
        except ValueError as error:
            raise ValueError(f"scale {name}: {error}") from error
    return found[scale]


def _checked(values: dict[str, Any]) -> GridFile:
    dotted: dict[str, Any] = dict(values)
    for name in dotted.keys() & {"settings", "axes", "zip", "exclude"}:
        table = values[name]
        several = isinstance(table, list)
        dotted[name] = [with_dots(each, PREFIXED) for each in table] if several else with_dots(table, PREFIXED)
    grid = GridFile(**dotted)
    if grid.seeds < 1 or grid.first_seed < 0:
        raise ValueError(f"seeds must be at least 1 and first_seed at least 0, got {grid.seeds} and {grid.first_seed}")
    places = check_places(_tables(grid))
    for place, table in _tables(grid)[1:]:
        for name, options in table.items():
            if not isinstance(options, list) or not options:
                raise ValueError(f"{place}: {name} must be a list of one value or more, got {options!r}")
            if any(value in options[:i] for i, value in enumerate(options)) and place == "[axes]":
                raise ValueError(f"{place}: {name} has a value twice, in {options}")
        if place != "[axes]" and not table:
            raise ValueError(f"{place} is empty: give it lists of one length, or leave it out")
        lengths = {name: len(options) for name, options in table.items()}
        if place != "[axes]" and len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise ValueError(f"{place}: lists that belong together must have one length: {counts}")
    for number, table in enumerate(grid.exclude, start=1):
        if not table:
            raise ValueError(f"exclude table {number} is empty: name the values of the cells to leave out")
        for name in table:
            if name not in places:
                raise ValueError(f"exclude table {number} names {name}, which no axis or setting of this file does")
    return grid


def _tables(grid: GridFile) -> list[tuple[str, dict[str, Any]]]:
    """The tables that set something, with what they are called in errors: the settings, and those with lists."""
    zips = [(f"zip table {number}", table) for number, table in enumerate(grid.zip, start=1)]
    return [("[settings]", grid.settings), ("[axes]", grid.axes), *zips]


def grid_cells(grid: GridFile, label: Callable[[TrainConfig], str] | None = None) -> list[Cell]:
    """The runs of a grid, seeds outermost, so that every comparison has its first results early.

    `label`: what tells a run from the others of its task and memory, in figures and tables; by default each setting
    that differs between them.

    Raises `ValueError` for settings that are unknown, of the wrong type or not possible together, for cells that are
    the same run, and for too many cells, before any of them is made.
    """
    combinations = _combinations(grid)
    seeds = range(grid.first_seed, grid.first_seed + grid.seeds)
    first = [_config(grid, each) for each in combinations]
    labels = _labels(combinations, first)
    if label is not None:
        labels = [(task, memory, label(config)) for (task, memory, _), config in zip(labels, first, strict=True)]
    found: list[Cell] = []
    taken: Counter[str] = Counter()
    for seed, (config, (task, memory, told)) in itertools.product(seeds, zip(first, labels, strict=True)):
        plain = "".join(c if c.isalnum() or c in "._=" else "-" for c in f"{task}-{memory}-{told}")
        if len(plain) > MAX_NAME:
            plain = f"{plain[: MAX_NAME - 9]}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
        name = f"{plain}-seed{seed}"
        taken[name] += 1
        unique = name if taken[name] == 1 else f"{name}-{taken[name]}"
        found.append(Cell(unique, task, memory, told, seed, config.replace(seed=seed)))
    alike: dict[str, int] = {}
    for i, config in enumerate(first):
        if (other := alike.setdefault(to_json(config), i)) != i:
            raise ValueError(
                f"{_where(combinations[other])} and {_where(combinations[i])} are the same run: exclude one"
            )
    return found


def _where(combination: Settings) -> str:
    return f"the cell {', '.join(f'{name} {value}' for name, value in combination.items())}"


def axes_of(grid: GridFile) -> list[list[Settings]]:
    """The values of each axis, and of each table of values that belong together."""
    axes: list[list[Settings]] = [[{name: value} for value in options] for name, options in grid.axes.items()]
    return axes + [
        [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)] for table in grid.zip
    ]


def _combinations(grid: GridFile) -> list[Settings]:
    """Every combination of the values of the axes that is not excluded."""
    axes = axes_of(grid)
    number = grid.seeds
    for axis in axes:
        number *= len(axis)
    if number > MAX_CELLS:
        counts = " × ".join(str(len(axis)) for axis in axes)
        raise ValueError(
            f"the grid has {number:,} runs ({counts} and {grid.seeds} seeds), more than {MAX_CELLS:,}: leave out values"
        )
    every: list[Settings] = [{k: v for part in parts for k, v in part.items()} for parts in itertools.product(*axes)]
    kept = list(every)
    for number, table in enumerate(grid.exclude, start=1):
        left = [each for each in kept if not _has_all(grid.settings | each, table)]
        if len(left) == len(kept):
            raise ValueError(f"exclude table {number} leaves out nothing: no cell that is left has {table}")
        kept = left
    if not kept:
        raise ValueError("every cell is excluded")
    return kept


def _has_all(settings: Settings, table: Settings) -> bool:
    return all(settings[name] == value for name, value in table.items())


def _config(grid: GridFile, combination: Settings) -> TrainConfig:
    """The settings of a cell, first seed. Raises `ValueError`, naming the cell, for those that are not possible."""
    try:
        return config_of(grid.preset, grid.settings | combination, grid.first_seed)
    except ValueError as error:
        raise ValueError(f"{error} (in {_where(combination)})" if combination else str(error)) from error


def _labels(combinations: Sequence[Settings], configs: Sequence[TrainConfig]) -> list[tuple[str, str, str]]:
    """The task, the memory and what else tells a cell from the others of this task and memory, for tables and figures.

    That is each setting that differs between them, and the name of the batching if any cell has segments or nothing
    differs.
    """
    pairs = [(task_label(config.env.id, config.env.options), config.network.memory) for config in configs]
    varied: dict[tuple[str, str], dict[str, list[str]]] = {}
    for pair, combination in zip(pairs, combinations, strict=True):
        for name, value in combination.items():
            varied.setdefault(pair, {}).setdefault(name, []).append(_text(value))
    segments = any(config.replay.batching == "segments" for config in configs)
    out = []
    for pair, combination, config in zip(pairs, combinations, configs, strict=True):
        differ = [name for name, values in varied.get(pair, {}).items() if len(set(values)) > 1]
        told = [f"{name}={_text(combination[name])}" for name in differ if name not in ("batching", "segment_length")]
        out.append((*pair, ", ".join([*([batching_label(config)] if segments or not told else []), *told])))
    return out


def task_label(env: str, options: dict[str, Any]) -> str:
    """The name of a task in figures and tables: that of the environment, with its options."""
    return "-".join([task_of(env), *(f"{name}{_text(value)}" for name, value in options.items())])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {each}" for name, each in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
