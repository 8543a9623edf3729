"""`memoroids list`: the names that other commands take."""

import inspect
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import tyro

from memoroids.cli.parse import parse


@dataclass(frozen=True)
class ListOptions:
    """Options of `memoroids list`."""

    what: Annotated[Literal["envs", "memories", "presets"], tyro.conf.Positional]
    """envs: POPGym's tasks; memories: the built-in memory models; presets: the paper's tasks and what each preset sets
    for them."""


def list_names(arguments: list[str]) -> None:
    """Prints the environments, memories or presets that can be named."""
    options: ListOptions = parse(ListOptions, "list", arguments)
    {"envs": _list_environments, "memories": _list_memories, "presets": _list_presets}[options.what]()


def _list_environments() -> None:
    from memoroids.envs import popgym_ids

    for name in popgym_ids():
        print(name)
    print(
        "and any Gymnasium id with discrete or, for ppo, continuous actions; your own as module:Id-v0; "
        "short names such as RepeatFirstEasy work, and device:RepeatFirstEasy for the same task in JAX"
    )


def _list_memories() -> None:
    """A table of the registry: names, titles, and sizes with their defaults."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from memoroids.memory import REGISTRY

    table = Table("name", "model", "sizes")
    for name, factory in REGISTRY.items():
        model, fixed = factory, {}
        if isinstance(factory, partial):
            model, fixed = (factory.args[0] if factory.args else factory.func), factory.keywords
        signature = inspect.signature(model)  # pyright: ignore[reportArgumentType]
        sizes = fixed | {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}
        title = (inspect.getmodule(model).__doc__ or "").splitlines()[0]  # pyright: ignore[reportOptionalMemberAccess]
        table.add_row(name, escape(title), ", ".join(f"{k}={_value(v)}" for k, v in sizes.items()))
    Console().print(table)


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _list_presets() -> None:
    """A line for each task and preset, and one more for each memory that changes something."""
    from memoroids.memory import REGISTRY
    from memoroids.runs.presets import TASKS, preset

    named = [(task, name) for task in TASKS for name in ("tuned", "paper")]
    for task, name in [*named, ("any ALE game", "atari")]:
        at = task if task in TASKS else TASKS[0]
        shared = preset(name, at, "")
        print(f"{task} {name}: {_settings(shared)}")
        for memory in REGISTRY:
            own = {k: v for k, v in preset(name, at, memory).items() if shared.get(k) != v}
            if own:
                print(f"{task} {name}, {memory}: {_settings(own)}")


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in values.items())
