"""`memoroids list`: the names that other commands take."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from memoroids.cli.parse import parse

WIDTH = 64
"""The default width of networks, `NetworkSettings.width`."""


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
    """Two tables of the registry: titles and sizes with their defaults, and what the models cost."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from memoroids.memory import REGISTRY
    from memoroids.memory.registry import COSTS, model_of, sizes_of

    models = Table(Column("name", no_wrap=True), "model", "sizes")
    costs = Table(Column("name", no_wrap=True), "parameters", "state", "step", "parallel in time", "source")
    for name, factory in REGISTRY.items():
        title = (inspect.getmodule(model_of(factory)).__doc__ or "").splitlines()[0]  # pyright: ignore[reportOptionalMemberAccess]
        sizes = ", ".join(f"{k}={_value(v)}" for k, v in sizes_of(factory).items())
        models.add_row(name, escape(title), sizes)
        parameters, state = _numbers(factory)
        costs.add_row(name, f"{parameters:,}", f"{state:,}", *COSTS[name])
    console = Console()
    console.print(models)
    console.print(costs)
    print(f"parameters and state: of the memory alone at a width of {WIDTH}, in numbers; a complex one counts as two")


def _numbers(factory: Any) -> tuple[int, int]:
    """How many numbers the parameters and the state of a memory are at the default width."""
    import equinox as eqx
    import jax

    def build() -> Any:
        memory = factory(WIDTH, WIDTH, key=jax.random.key(0))
        return eqx.filter(memory, eqx.is_array), memory.initial_state()

    memory, state = eqx.filter_eval_shape(build)
    return _count(memory), _count(state)


def _count(tree: Any) -> int:
    import jax

    return sum(leaf.size * (1 + (leaf.dtype.kind == "c")) for leaf in jax.tree.leaves(tree))


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
