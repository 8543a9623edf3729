"""Settings for the paper's nine tasks: `paper` as published, `tuned` ours."""

from typing import Any

from memoroids.envs import resolve_id

# Morad et al. 2024, Appendix H, with what its published configurations say more. `dqn.` names the learner's settings.
_PAPER_ALL: dict[str, Any] = {
    "random_episodes": 10_000,
    "train_episodes": 10_000,
    "batch_size": 1_000,
    "cut_batch": True,
    "buffer_size": 4_000_000,
    "previous_action": True,
    "epsilon_start": 0.2,
    "epsilon_end": 0.01,
    "dqn.learning_rate": 1e-4,
    "dqn.warmup": 200,
    "dqn.clip": 0.01,
    "dqn.polyak": 0.995,
    "dqn.discount": 0.99,
}
_PAPER: dict[str, dict[str, Any]] = {
    "RepeatFirstEasy": {"random_episodes": 5_000, "train_episodes": 5_000, "previous_action": False},
    "RepeatPreviousEasy": {
        "random_episodes": 5_000,
        "train_episodes": 5_000,
        "previous_action": False,
        "epsilon_end": 0.1,
        "dqn.discount": 0.5,
    },
    "CountRecallEasy": {},
    "PositionOnlyCartPoleEasy": {"batch_size": 4_000},
    "VelocityOnlyCartpoleEasy": {"batch_size": 4_000},
    "NoisyPositionOnlyCartPoleEasy": {"batch_size": 4_000},
    "AutoencodeEasy": {"updates_per_episode": 4},
    "MultiarmedBanditEasy": {"dqn.discount": 0.8, "dqn.polyak": 0.9975},
    "MineSweeperEasy": {"train_episodes": 40_000, "dqn.polyak": 0.9975},
}

# Ours: the same network and learner, whole batches instead of cut ones, a higher learning rate.
_TUNED_ALL: dict[str, Any] = {
    "random_episodes": 500,
    "train_episodes": 5_000,
    "buffer_size": 1_000_000,
    "dqn.learning_rate": 4e-4,
}
_TUNED: dict[str, dict[str, Any]] = {
    "RepeatPreviousEasy": {"random_episodes": 200, "train_episodes": 400, "dqn.discount": 0.5},
}
_TUNED_MEMORY: dict[str, dict[str, Any]] = {}

TASKS = tuple(_PAPER)
"""The paper's nine tasks, by POPGym's names without prefix and version."""
PRESETS = ("tuned", "paper")


def _task(env: str) -> str:
    return resolve_id(env).removeprefix("popgym-").removesuffix("-v0")


def preset(name: str, env: str, memory: str) -> dict[str, Any]:
    """What preset `name` sets for an environment and a memory: field → value, `dqn.` before the learner's.

    Environments other than the nine get what the nine share (for `paper` without its `previous_action`, so that the
    environment is asked). Raises `ValueError` for an unknown environment.
    """
    task = _task(env)
    if name == "paper":
        values = _PAPER_ALL | _PAPER.get(task, {"previous_action": None})
        return values
    values = _TUNED_ALL | _TUNED.get(task, {})
    sizes = _TUNED_MEMORY.get(memory, {})
    return values | ({"memory_sizes": sizes} if sizes else {})
