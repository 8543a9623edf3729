"""The options of `memoroids train`: all settings of a run in one flat list, those of its agent among them."""

import dataclasses
import typing
from typing import Annotated, Any

import tyro

from memoroids._util.messages import suggest
from memoroids.agents.agent_registry import REGISTRY, resolve_agent
from memoroids.cli.failures import UsageError
from memoroids.runs.presets import PRESETS
from memoroids.runs.settings import RENAMED, TrainConfig, options

PRESET_HELP = (
    "Where settings that are not given come from: tuned (ours), paper or atari (as published; for dqn), or a file of "
    "your own, as `memoroids tune` writes one."
)


def flagged(config: TrainConfig) -> TrainConfig:
    """`config` in a type that tyro reads: groups without a prefix, the agent's settings in their own type."""
    kind = _flagged_type(config)
    values = _fields(config)
    for group in RENAMED:
        values[group] = kind.__dataclass_fields__[group].default_factory(**_fields(values[group]))
    return kind(**values)


def plain(config: TrainConfig) -> TrainConfig:
    """A config that tyro gave, in the types that it has everywhere else."""
    values = _fields(config)
    del values["preset"]
    for group in RENAMED:
        kind = type(values[group]).__mro__[1]
        values[group] = kind(**_fields(values[group]))
    return TrainConfig(**values)


def without_prefix(arguments: list[str], algorithm: str) -> list[str]:
    """`arguments` as tyro takes them: --ppo.lambda_, with the agent's name, becomes --lambda_.

    Names that end with an underscore because Python reserves the word may be given without it: --lambda. Raises
    `UsageError` for an option that only other agents have.
    """
    kinds = {name: kind.setting_names for name, kind in REGISTRY.items()}
    own = resolve_agent(algorithm).setting_names | set(options())
    out = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if not option.startswith("--"):
            out.append(argument)
            continue
        negated, rest = option.startswith("--no-"), option[2:].removeprefix("no-")
        agent, dot, inner = rest.partition(".")
        named = bool(dot) and agent in REGISTRY
        if named:
            negated, rest = negated or inner.startswith("no-"), inner.removeprefix("no-")
        name = rest.replace("-", "_")
        if any(f"{name}_" in fields for fields in (own, *kinds.values())):
            rest, name = f"{rest}_", f"{name}_"
        if named and name not in kinds[agent]:
            near = suggest(name, kinds[agent], most=0)
            raise UsageError(f"train: no option {option}: {agent} has no setting {name}{near}")
        others = [agent] if named else [other for other, fields in kinds.items() if name in fields]
        if others and (algorithm not in others if named else name not in own):
            raise UsageError(f"train: {name} is a setting of {' and '.join(others)}, but the algorithm is {algorithm}")
        out.append(f"--{'no-' * negated}{rest}{equals}{value}")
    return out


def _fields(settings: Any) -> dict[str, Any]:
    return {each.name: getattr(settings, each.name) for each in dataclasses.fields(settings)}


def _flagged_type(config: TrainConfig) -> Any:
    # Read before tyro reads the options, see `read_settings`: an option of the command line, but not a setting.
    source = Annotated[str, tyro.conf.arg(help=PRESET_HELP, metavar=f"{{{','.join(PRESETS)},FILE.toml}}")]
    fields: list[Any] = [("preset", source, dataclasses.field(default=PRESETS[0]))]
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if not dataclasses.is_dataclass(value):
            continue
        kind: Any = type(value)
        if each.name in RENAMED:
            kind = _renamed(kind, RENAMED[each.name])
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
