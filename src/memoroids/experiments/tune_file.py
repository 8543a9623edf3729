"""What a search for settings is told: a TOML file with the settings that all trials share and the ranges of others."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memoroids._util.messages import suggest
from memoroids._util.toml_tables import read_toml, with_dots
from memoroids.experiments.file_settings import Settings, check_places, config_of
from memoroids.runs.presets import PRESETS
from memoroids.runs.settings import PREFIXED, TrainConfig

_RANGE = {"low", "high", "log", "step"}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included: whole ones if both are; `log`: uniform in their logarithm.

    `step`: the distance between neighbouring values, None for all of them.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return all(isinstance(each, int) for each in (self.low, self.high, self.step or 1))


@dataclass(frozen=True)
class TuneFile:
    """What a tune file says.

    `settings`: of all trials. `search`: setting → `Range`, or a list of values. A trial is run with `seeds` seeds from
    `first_seed` on; the best settings and those without a search are then compared on `report_seeds` others, from
    `first_report_seed` on. `prune`: whether trials that do worse than most before them are ended early.
    """

    title: str
    preset: str = PRESETS[0]
    trials: int = 20
    seeds: int = 1
    first_seed: int = 100
    report_seeds: int = 3
    first_report_seed: int = 0
    prune: bool = True
    settings: Settings = field(default_factory=dict)
    search: dict[str, Range | list[Any]] = field(default_factory=dict)

    def config(self, found: Settings, seed: int) -> TrainConfig:
        """The settings of a run: these, with what a trial `found` in their place. Raises `ValueError`."""
        return config_of(self.preset, self.settings | found, seed)


def read_tune(path: Path) -> TuneFile:
    """Reads a tune file. Raises `ValueError`, naming the file, for one that is not valid TOML or no search.

    Settings are tried at the ends of their ranges, and at each value of a list, before any trial begins.
    """
    return read_toml(path, _KEYS, lambda values: _checked({"title": path.stem} | values))


_KEYS = {"title": str, "preset": str, "trials": int, "seeds": int, "first_seed": int, "report_seeds": int}
_KEYS |= {"first_report_seed": int, "prune": bool, "settings": dict, "search": dict}


def _checked(values: Any) -> TuneFile:
    values |= {name: with_dots(values[name], PREFIXED) for name in ("settings", "search") if name in values}
    search = {name: _searched(name, value) for name, value in values.get("search", {}).items()}
    tune = TuneFile(**values | {"search": search})
    for name in ("trials", "seeds", "report_seeds"):
        if getattr(tune, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(tune, name)}")
    for name in ("first_seed", "first_report_seed"):
        if getattr(tune, name) < 0:
            raise ValueError(f"{name} must be at least 0, got {getattr(tune, name)}")
    if not search:
        raise ValueError(
            "[search] names no setting: give one a list of values or a range, as in {low = 1e-4, high = 1e-2}"
        )
    if not tune.title:
        raise ValueError("title must not be empty: it names the search")
    check_places([("[settings]", tune.settings), ("[search]", search)])
    searched, reported = (
        range(first, first + number)
        for first, number in ((tune.first_seed, tune.seeds), (tune.first_report_seed, tune.report_seeds))
    )
    if max(searched.start, reported.start) < min(searched.stop, reported.stop):
        raise ValueError(
            f"the seeds of the search, {searched.start} to {searched.stop - 1}, and those of the report, "
            f"{reported.start} to {reported.stop - 1}, must have none in common: choosing on a seed makes it look good"
        )
    tune.config({}, tune.first_report_seed)
    for name, options in search.items():
        for value in [options.low, options.high] if isinstance(options, Range) else options:
            tune.config({name: value}, tune.first_seed)
    return tune


def _searched(name: str, value: Any) -> Range | list[Any]:
    if isinstance(value, list):
        if len(value) < 2 or any(each in value[:i] for i, each in enumerate(value)):
            raise ValueError(f"[search] {name} must have two values or more, none of them twice, got {value}")
        return value
    if not isinstance(value, dict):
        raise ValueError(
            f"[search] {name} must be a list of values or a range, as in {{low = 1, high = 9}}, got {value!r}"
        )
    if unknown := sorted(set(value) - _RANGE):
        raise ValueError(f"[search] {name} has an unknown key {unknown[0]!r}{suggest(unknown[0], sorted(_RANGE))}")
    if missing := [key for key in ("low", "high") if key not in value]:
        raise ValueError(f"[search] {name} has no {missing[0]}")
    numbers = [value[key] for key in ("low", "high", "step") if key in value]
    if not all(
        isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in numbers
    ):
        raise ValueError(f"[search] {name}: low, high and step must be numbers, got {value}")
    found = Range(**value)
    if not isinstance(found.log, bool):
        raise ValueError(f"[search] {name}: log must be true or false, got {found.log!r}")
    if found.low >= found.high:
        raise ValueError(f"[search] {name}: low must be below high, got {found.low} and {found.high}")
    if found.log and (found.low <= 0 or found.step is not None):
        raise ValueError(f"[search] {name}: log needs a low above 0 and no step, got {value}")
    if found.step is not None and found.step <= 0:
        raise ValueError(f"[search] {name}: step must be above 0, got {found.step}")
    if not found.whole and isinstance(found.low, int) and isinstance(found.high, int):
        raise ValueError(f"[search] {name}: step must be whole between whole numbers, or low and high no whole ones")
    return found
