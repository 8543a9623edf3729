"""The options of `memoroids train`: all settings of a run in one flat list, those of its agent among them."""

import dataclasses
import typing
from typing import Annotated, Any

import tyro

from memoroids.agents.agent_registry import REGISTRY, resolve_agent
from memoroids.cli.failures import UsageError
from memoroids.runs.settings import OPTIONS, TrainConfig, options


def flagged(config: TrainConfig) -> TrainConfig:
    """`config` in a type that tyro reads: groups without a prefix, the agent's settings in their own type."""
    kind = _flagged_type(config)
    values = _fields(config)
    for group in OPTIONS:
        values[group] = kind.__dataclass_fields__[group].default_factory(**_fields(values[group]))
    return kind(**values)


def plain(config: TrainConfig) -> TrainConfig:
    """A config that tyro gave, in the types that it has everywhere else."""
    values = _fields(config)
    for group in OPTIONS:
        kind = type(values[group]).__mro__[1]
        values[group] = kind(**_fields(values[group]))
    return TrainConfig(**values)


def without_prefix(arguments: list[str], algorithm: str) -> list[str]:
    """`arguments` where an option of the agent may stand with the agent's name: --ppo.lambda_ for --lambda_.

    Raises `UsageError` for an option that only another agent has.
    """
    kinds = {name: {each.name for each in dataclasses.fields(kind.settings)} for name, kind in REGISTRY.items()}
    own = {each.name for each in dataclasses.fields(resolve_agent(algorithm).settings)} | set(options())
    out = []
    for argument in arguments:
        if not argument.startswith("--"):
            out.append(argument)
            continue
        prefix, dot, rest = argument[2:].partition(".")
        named = dot and prefix in REGISTRY
        name = (rest if named else argument[2:]).partition("=")[0].removeprefix("no-").replace("-", "_")
        if named and name not in kinds[prefix]:
            raise UsageError(f"train: no option --{prefix}.{rest.partition('=')[0]}: {prefix} has no setting {name}")
        others = [other for other, fields in kinds.items() if name in fields]
        other = prefix if named and prefix != algorithm else others[0] if others and name not in own else None
        if other is not None:
            raise UsageError(f"train: {name} is set for {other}, but the algorithm is {algorithm}")
        out.append(f"--{rest}" if named else argument)
    return out


def _fields(settings: Any) -> dict[str, Any]:
    return {each.name: getattr(settings, each.name) for each in dataclasses.fields(settings)}


def _flagged_type(config: TrainConfig) -> Any:
    fields = []
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if not dataclasses.is_dataclass(value):
            continue
        kind: Any = type(value)
        if each.name in OPTIONS:
            kind = _renamed(kind, OPTIONS[each.name])
        annotation = kind if each.name == "priority" else Annotated[kind, tyro.conf.OmitArgPrefixes]
        fields.append((each.name, annotation, dataclasses.field(default_factory=kind)))
    made = dataclasses.make_dataclass("TrainConfig", fields, bases=(TrainConfig,), frozen=True)
    made.__doc__ = TrainConfig.__doc__
    return made


def _renamed(kind: Any, names: dict[str, str]) -> Any:
    """A group whose options have other names than its fields."""
    hints = typing.get_type_hints(kind)
    fields = []
    for each in dataclasses.fields(kind):
        if each.name in names:
            annotation = Annotated[hints[each.name], tyro.conf.arg(name=names[each.name].replace("_", "-"))]
            default = {"default": each.default, "default_factory": each.default_factory}
            given = {key: value for key, value in default.items() if value is not dataclasses.MISSING}
            fields.append((each.name, annotation, dataclasses.field(**given)))
    made = dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True)
    made.__doc__ = kind.__doc__
    return made
