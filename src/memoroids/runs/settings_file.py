"""Settings as JSON, the content of config.json in a run directory; every type is checked when they are read."""

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal

from memoroids._util.messages import printable, suggest
from memoroids._version import __version__
from memoroids.agents.agent_registry import resolve_agent
from memoroids.runs.settings import TrainConfig, options

SCHEMA = 2
"""Version of the layout of the settings; files with another version are refused."""
ADDED = {"agent.prediction_weight", "trackers.trackio"}
"""Settings that came later within the schema, and whose defaults do what was done before: files may lack them."""


def to_json(config: TrainConfig) -> str:
    """The settings as indented JSON, with their schema and the version of memoroids."""
    values = {"version": __version__, "schema": SCHEMA} | dataclasses.asdict(config)
    return json.dumps(values, indent=2, default=str)


def from_json(text: str) -> TrainConfig:
    """Reads settings from JSON, without importing anything that they name.

    Raises `ValueError` naming a field that is missing, unknown, of the wrong type or out of range, or, if the schema is
    another one, the version of memoroids that wrote the settings.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"settings must be a JSON object, got {type(values).__name__}")
    version = printable(values.pop("version", "an earlier version"))
    schema = values.pop("schema", 1)
    if schema != SCHEMA:
        raise ValueError(
            f"written by memoroids {version} with settings of schema {schema}, this is {__version__} with schema "
            f"{SCHEMA}: resume with the version that wrote it, or train again"
        )
    try:
        return _from_dict(TrainConfig, values, "")
    except ValueError as error:
        if version == __version__:
            raise
        raise ValueError(f"written by memoroids {version}, this is {__version__}: {error}") from error


def check_types(values: dict[str, Any], algorithm: str) -> None:
    """Checks the types of settings read from a file, by the names of options or of the agent's settings.

    Raises `ValueError` for the first that is of another type. Names that are unknown are left to `TrainConfig.of`.
    """
    agent = resolve_agent(algorithm).settings
    own = {f.name: (agent, f.name) for f in dataclasses.fields(agent)} if dataclasses.is_dataclass(agent) else {}
    groups = typing.get_type_hints(TrainConfig)
    known = own | {name: (groups[group] if group else TrainConfig, field) for name, (group, field) in options().items()}
    for name, value in values.items():
        owner, field = known.get(name, (None, ""))
        hint = typing.get_type_hints(owner)[field] if owner else Any
        if not _fits(value, hint):
            raise ValueError(f"{name} must be {getattr(hint, '__name__', hint)}, got {value!r}")


def with_typed_agent(config: TrainConfig) -> TrainConfig:
    """Converts the settings of an agent that is the user's code from a dictionary to the type that the agent declares.

    Imports that code. Raises `ValueError` if it cannot be imported or does not accept these settings.
    """
    if not isinstance(config.agent, dict):
        return config
    return dataclasses.replace(config, agent=_from_dict(config.agent_type().settings, config.agent, "agent."))


def _from_dict(cls: type, values: dict[str, Any], prefix: str) -> Any:
    """The dataclass `cls` from a JSON object; `prefix` is prepended to the names of fields in errors."""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    if unknown := sorted(set(values) - set(fields)):
        raise ValueError(f"unknown field {prefix}{printable(unknown[0])}{suggest(unknown[0], fields)}")
    values = {f.name: f.default for f in fields.values() if f"{prefix}{f.name}" in ADDED} | values
    if missing := sorted(set(fields) - set(values)):
        raise ValueError(f"missing field {prefix}{missing[0]}")
    if cls is TrainConfig:
        hints["agent"] = _agent_type(values["algorithm"])
    out = {}
    for name, value in values.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            if not isinstance(value, dict):
                raise ValueError(f"field {prefix}{name} must be an object, got {value!r}")
            value = _from_dict(hint, value, f"{prefix}{name}.")
        elif not _fits(value, hint):
            raise ValueError(f"field {prefix}{name} must be {hint}, got {value!r}")
        elif typing.get_origin(hint) is tuple:
            value = tuple(value)
        elif value is not None and Path in (hint, *typing.get_args(hint)):
            value = Path(value)
        out[name] = value
    return cls(**out)


def _agent_type(algorithm: Any) -> Any:
    """The type of the agent's settings; a plain dictionary if the agent would have to be imported."""
    if not isinstance(algorithm, str):
        raise ValueError(f"field algorithm must be a name, got {algorithm!r}")
    return dict[str, Any] if ":" in algorithm else resolve_agent(algorithm).settings


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON fits a type hint."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, list) and all(_fits(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items())
    if hint is Path:
        return isinstance(value, str)
    if hint is float:
        # Python's JSON accepts NaN and Infinity. math.isfinite raises for integers too large for a float.
        finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        return finite and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
