"""Settings in files of the user's own: which of them a file may name, and the run that they stand for."""

from typing import Any

from memoroids._util.messages import one_line
from memoroids.envs import resolve
from memoroids.memory.registry import resolve_memory
from memoroids.runs.presets import named_by
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import check_types

Settings = dict[str, Any]
REFUSED = {
    "seed": "count seeds with `seeds = 3` and `first_seed = 0`, outside the tables",
    "seeds": "count seeds with `seeds = 3`, outside the tables",
    "run_dir": "every run has a directory of its own",
    "preset": 'name it outside the tables, `preset = "default"`',
}
"""What a file decides otherwise, and how."""


def check_places(tables: list[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Where each setting is set, by the names of the tables. Raises `ValueError` for one that two of them set."""
    places: dict[str, str] = {}
    for place, table in tables:
        for name in table:
            if name in REFUSED:
                raise ValueError(f"{place} sets {name}: {REFUSED[name]}")
            if name in places:
                raise ValueError(f"{name} is set by {places[name]} and by {place}: set it in one place")
            places[name] = place
    return places


def config_of(preset: str, values: Settings, seed: int) -> TrainConfig:
    """The settings of a run: those of `preset` with `values` put in. Raises `ValueError` for what is not possible."""
    algorithm = values.get("algorithm", named_by(preset).get("algorithm", TrainConfig().algorithm))
    if not isinstance(algorithm, str):
        raise ValueError(f"algorithm must be text, got {algorithm!r}")
    check_types(values, algorithm)
    if "memory" in values:
        resolve_memory(values["memory"])
    try:
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        config = TrainConfig.of(preset=preset, **given, seed=seed)
        return config.replace(env=resolve(config.env.id))
    except TypeError as error:  # of an agent of the user's own, whose settings check their types or do not
        raise ValueError(one_line(error)) from error
