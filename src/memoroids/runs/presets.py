"""Presets: the settings of everything that the user does not set."""

import copy
from pathlib import Path
from typing import Any

from memoroids._util.messages import suggest
from memoroids.agents.agent_registry import REGISTRY, resolve_agent
from memoroids.envs import DEVICE_PREFIX, is_atari, resolve, task_of
from memoroids.runs import preset_values as values
from memoroids.runs.preset_file import WHAT, is_file, read_preset
from memoroids.runs.settings import options
from memoroids.runs.settings_file import check_types

TASKS = tuple(values.PAPER)
"""The paper's nine tasks, by their POPGym names without prefix and version."""
MEMORIES = ("ffm", "linear_transformer", "lru", "s5")
"""The memories that the paper compares."""
SEGMENT_LENGTHS = (10, 20, 50, 100)
"""The segment lengths L that the paper compares with tapes."""
PRESETS = ("tuned", "default", "paper", "atari")
"""The names of the presets."""


def preset(name: str, env: str, memory: str, algorithm: str = "dqn") -> dict[str, Any]:
    """The settings of preset `name` for an environment, a memory and an agent: option → value, for `TrainConfig.of`.

    `default` sets nothing: every setting has its default. `tuned` differs from it on tasks that settings were searched
    for, and nowhere else. `paper` has the settings that the nine tasks share on all other environments, except that it
    leaves `previous_action` to the environment. Atari games get `atari` whichever of `tuned` and `paper` is named,
    since a replay as long as that of the nine tasks would not fit into memory. Options that the agent does not have are
    left out.

    A name that ends with .toml is a file of the user's own (`read_preset`), whose settings replace those of the preset
    on which it builds; all of them have to be the agent's.

    Raises `ValueError` for an unknown preset, environment or agent, for an agent without replay if the preset is
    `paper` or `atari`, which publish no settings for these, and for a file that is no preset.
    """
    if is_file(name):
        base, settings = read_preset(Path(name))
        check_types(settings, algorithm)
        found = preset(base, env, memory, algorithm)
        own = {option: tuple(v) if isinstance(v, list) else v for option, v in settings.items() if option not in WHAT}
        if settings.get("memory", memory) != memory:
            own.pop("memory_sizes", None)  # they are those of another memory
        sizes = found.get("memory_sizes", {}) | own.get("memory_sizes", {})
        return found | own | ({"memory_sizes": sizes} if sizes else {})
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}{suggest(name, PRESETS)}")
    kind = resolve_agent(algorithm)
    from_replay = kind.traits.learns_from_replay
    if name in ("paper", "atari") and not from_replay:
        raise ValueError(f"preset {name} has no settings for {algorithm}, which learns without replay: use tuned")
    id_ = resolve(env)
    task = task_of(id_)
    found: dict[str, Any] = {}
    if name == "atari" or (from_replay and is_atari(id_) and name != "default"):
        found = values.ATARI | _sizes(memory, values.ATARI_SIZES.get(memory, {}))
    elif name == "paper":
        found = values.PAPER_ALL | values.PAPER.get(task, {"previous_action": None}) | _sizes(memory)
    elif name == "tuned" and from_replay and task in values.TUNED:
        of_memory = values.TUNED_MEMORY.get((task, memory), {})
        found = values.TUNED_ALL | values.TUNED[task] | of_memory | _sizes(memory, of_memory.get("memory_sizes", {}))
    elif name == "tuned" and not from_replay and (searched := _searched(algorithm, task, memory)) is not None:
        found = searched if id_.startswith(DEVICE_PREFIX) else _without_rollout(searched)
    elif name == "tuned" and not from_replay and task in values.POLICY:
        found = _without_replay(algorithm, task, memory, id_.startswith(DEVICE_PREFIX))
    if name == "tuned" and found:  # settings were searched with what the environments ask for
        found = {"previous_action": task.startswith(values.ASKING)} | found
    known = set(options())
    if algorithm in REGISTRY:  # what the settings of a user's agent are best at, its own defaults say
        known |= kind.setting_names
    return copy.deepcopy({option: value for option, value in found.items() if option in known})


def named_by(name: str) -> dict[str, str]:
    """The environment, memory and algorithm that a preset names; only those of the user's own do."""
    return read_preset(Path(name)).what if is_file(name) else {}


def _sizes(memory: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The setting of a memory's sizes: as published, with `changes`; nothing if there is nothing to set."""
    sizes = values.PUBLISHED_SIZES.get(memory, {}) | (changes or {})
    return {"memory_sizes": sizes} if sizes else {}


def _searched(algorithm: str, task: str, memory: str) -> dict[str, Any] | None:
    """What differs from the defaults; None where nothing was searched for."""
    tasks = values.SEARCHED.get(algorithm, {})
    found = tasks.get((task, memory), tasks.get((task, "")))
    return found and values.SEARCHED_ALL | found


def _without_rollout(found: dict[str, Any]) -> dict[str, Any]:
    """Tasks on the host may have any length, so their rollouts have the default one."""
    return {option: value for option, value in found.items() if option != "rollout"}


def _without_replay(algorithm: str, task: str, memory: str, on_device: bool) -> dict[str, Any]:
    """Our settings for agents without replay."""
    of_memory = values.POLICY_MEMORY.get((task, memory), {})
    found = values.POLICY_ALL | values.POLICY_AGENT.get(algorithm, {}) | values.POLICY[task] | of_memory
    sizes = values.POLICY_SIZES.get(memory, {}) | of_memory.get("memory_sizes", {})
    return (found if on_device else _without_rollout(found)) | _sizes(memory, sizes)
