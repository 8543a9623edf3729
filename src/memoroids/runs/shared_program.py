"""Runs that can share one compiled program: they differ in their seeds and in numbers that only enter arithmetic."""

import json
from collections.abc import Sequence

import numpy as np

from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import to_json


def program_key(config: TrainConfig) -> str:
    """A text that is the same for two runs on device if and only if they can share a program.

    They may differ in their seeds and in the agent's `AgentType.numbers`, unless one of them
    has such a number and the other has None there. Those of an agent of the user's own may differ in their seeds.
    """
    values = json.loads(to_json(config)) | {"seed": 0}
    for name in _numbers(config):
        if values["agent"][name] is not None:
            values["agent"][name] = 0.0
    return json.dumps(values)


def differing_numbers(configs: Sequence[TrainConfig]) -> list[dict[str, np.float32]]:
    """For each of several runs that share a program, the numbers in which some of them differ, float32 scalars."""
    names = [n for n in sorted(_numbers(configs[0])) if len({getattr(config.agent, n) for config in configs}) > 1]
    return [{name: np.float32(getattr(config.agent, name)) for name in names} for config in configs]


def _numbers(config: TrainConfig) -> frozenset[str]:
    return frozenset() if ":" in config.algorithm else config.agent_type().numbers
