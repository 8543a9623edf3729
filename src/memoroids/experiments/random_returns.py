"""Returns of uniformly random actions, to compare agents with."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memoroids._util.files import atomic_write_text
from memoroids.acting.evaluation import Evaluation
from memoroids.acting.host_collection import Collector
from memoroids.acting.policies import RandomPolicy
from memoroids.envs import HostEnv
from memoroids.envs.host.vector import LocalEnvs
from memoroids.experiments.grid import Cell
from memoroids.runs.seeds import RANDOM, environment_seeds

FILE = "random.json"
EPISODES = 200


class RandomReturn(NamedTuple):
    """The mean return of random actions, and its standard error."""

    mean: float
    error: float

    @property
    def above(self) -> float:
        """The return above which an agent is better than random: two standard errors above the mean."""
        return self.mean + 2 * self.error


def random_return(env: str, options: dict[str, Any], episodes: int = EPISODES, seed: int = 0) -> RandomReturn:
    """Measures the return of uniformly random actions in a host environment over `episodes` ≥ 2 episodes.

    Raises `ValueError` if the environment cannot be made, `EnvironmentFault` if it misbehaves.
    """
    envs = LocalEnvs([HostEnv(env, options=options)])
    try:
        policy = RandomPolicy(envs.example.actions, seed)
        played = list(Collector(envs, policy, environment_seeds(seed, RANDOM), 0, episodes))
    finally:
        envs.close()
    returns = Evaluation.of(played).returns
    return RandomReturn(float(np.mean(returns)), float(np.std(returns, ddof=1)) / math.sqrt(episodes))


def measure(root: Path, cells: Sequence[Cell], episodes: int = EPISODES) -> None:
    """Writes the random returns of the tasks of a grid to `root`/random.json; those that it holds are kept."""
    found = read(root)
    for cell in cells:
        if cell.task not in found:
            found[cell.task] = random_return(cell.config.env.id, cell.config.env.options, episodes)
            values = {task: each._asdict() for task, each in found.items()}
            atomic_write_text(root / FILE, json.dumps(values, indent=2) + "\n")


def read(root: Path) -> dict[str, RandomReturn]:
    """The random returns that `root`/random.json holds by task, none if there is no such file.

    Raises `ValueError` if it is damaged.
    """
    path = root / FILE
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    try:
        return {
            task: RandomReturn(float(each["mean"]), float(each["error"])) for task, each in json.loads(text).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} holds no random returns ({error}): delete it to measure them again") from error
