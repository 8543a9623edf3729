"""How the command line names a run: by its batching, and by its directory."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memoroids.runs.settings import TrainConfig


def batching_of(config: "TrainConfig") -> str:
    """How a run learns and batches, in a word or two: `ppo`, `pqn`, `tapes` or `segments L=10`."""
    from memoroids.agents.agent_registry import REGISTRY

    kind = REGISTRY.get(config.algorithm)
    if kind is None or not kind.traits.learns_from_replay:
        return config.algorithm
    return "tapes" if config.replay.batching == "tape" else f"segments L={config.replay.segment_length}"


def new_run_dir(config: "TrainConfig") -> Path:
    """A directory under runs/ that does not exist yet, named after the settings and numbered from 1."""
    from memoroids.envs import short_name

    short = short_name(config.env.id).replace("/", "-").replace(":", "-")
    memory = config.network.memory.replace(":", "-")
    if config.algorithm != type(config).algorithm:  # the default goes without saying
        memory = f"{config.algorithm.replace(':', '-')}-{memory}"
    batching = f"-segments{config.replay.segment_length}" if config.replay.batching == "segments" else ""
    seeds = (
        f"seed{config.seed}"
        if config.placement.seeds == 1
        else f"seeds{config.seed}-{config.seed + config.placement.seeds - 1}"
    )
    number = 1
    while (path := Path("runs") / f"{short}-{memory}{batching}-{seeds}-{number}").exists():
        number += 1
    return path
