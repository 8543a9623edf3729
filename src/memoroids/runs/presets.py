"""Presets: the settings of everything that the user does not set."""

import copy
from typing import Any

from memoroids._util.messages import suggest
from memoroids.agents.agent_registry import REGISTRY, resolve_agent
from memoroids.envs import DEVICE_PREFIX, is_atari, resolve, task_of
from memoroids.runs import preset_values as values
from memoroids.runs.settings import options

TASKS = tuple(values.PAPER)
"""The paper's nine tasks, by their POPGym names without prefix and version."""
MEMORIES = ("ffm", "linear_transformer", "lru", "s5")
"""The memories that the paper compares."""
SEGMENT_LENGTHS = (10, 20, 50, 100)
"""The segment lengths L that the paper compares with tapes."""
PRESETS = ("tuned", "paper", "atari")
"""The names of the presets."""


def preset(name: str, env: str, memory: str, algorithm: str = "dqn") -> dict[str, Any]:
    """The settings of preset `name` for an environment, a memory and an agent: option → value, for `TrainConfig.of`.

    Environments other than the paper's nine tasks get the settings that the nine share, except that `paper` leaves
    `previous_action` to the environment. Atari games get `atari` whichever preset is named: no other settings were
    published or tried, and a replay as long as that of the nine tasks would not fit into memory. Options that the agent
    does not have are left out.

    Raises `ValueError` for an unknown preset, environment or agent, and for an agent without replay if the preset is
    `paper` or `atari`, which publish no settings for these.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}{suggest(name, PRESETS)}")
    kind = resolve_agent(algorithm)
    if name != "tuned" and not kind.traits.learns_from_replay:
        raise ValueError(f"preset {name} has no settings for {algorithm}, which learns without replay: use tuned")
    id_ = resolve(env)
    task = task_of(id_)
    if not kind.traits.learns_from_replay:
        found = _without_replay(task, memory, id_.startswith(DEVICE_PREFIX))
    elif name == "atari" or is_atari(id_):
        sizes = values.ATARI_SIZES.get(memory)
        found = values.ATARI | ({"memory_sizes": sizes} if sizes else {})
    elif name == "paper":
        found = values.PAPER_ALL | values.PAPER.get(task, {"previous_action": None})
    else:
        found = values.TUNED_ALL | values.TUNED.get(task, {}) | values.TUNED_MEMORY.get((task, memory), {})
    known = set(options())
    if algorithm in REGISTRY:  # what the settings of a user's agent are best at, its own defaults say
        known |= kind.setting_names
    return copy.deepcopy({option: value for option, value in found.items() if option in known})


def _without_replay(task: str, memory: str, on_device: bool) -> dict[str, Any]:
    """Our settings for agents without replay."""
    found = values.POLICY_ALL | values.POLICY.get(task, {}) | values.POLICY_MEMORY.get((task, memory), {})
    sizes = values.POLICY_SIZES.get(memory, {}) | found.get("memory_sizes", {})
    if not on_device:  # host environments collect whole episodes of any length, so their budget is in episodes
        found = {option: value for option, value in found.items() if option != "rollout"}
        found |= {"train_episodes": found["train_steps"] // 100, "train_steps": None}
    return found | {"memory_sizes": sizes}
