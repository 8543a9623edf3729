"""Published scores of POPGym's tasks, and the comparison of a grid's results with them."""

from typing import Any

import numpy as np

from memoroids.experiments.results import Results, Run

LEVELS = ("Easy", "Medium", "Hard")
PUBLISHED: dict[str, tuple[float, float, float]] = {
    "RepeatFirst": (1.0, 1.0, 0.97),
    "RepeatPrevious": (1.0, 0.79, 0.19),
    "CountRecall": (0.51, -0.52, -0.47),
    "Autoencode": (-0.28, -0.42, -0.45),
    "NoisyPositionOnlyCartPole": (1.0, 0.66, 0.40),
    "MultiarmedBandit": (0.63, 0.60, 0.57),
}
"""Mean return of the best of 13 memories with PPO after 15 million steps, at each of `LEVELS`, for some of the tasks.

Source: Morad et al. 2023, POPGym, Table 5.
"""


def against_published(results: Results) -> list[dict[str, Any]]:
    """For each task and level: the memory with the best final return beside `PUBLISHED`; empty unless PPO was used."""
    if results.grid["choice"]["figure"] != "popgym":
        return []
    best: dict[str, tuple[float, str, list[Run]]] = {}
    for (task, memory, _), runs in results.groups().items():
        final = float(np.mean([run.summary["final_return"] for run in runs]))
        if task not in best or final > best[task][0]:
            best[task] = final, memory, runs
    out = []
    for task, (final, memory, runs) in best.items():
        level = next((level for level in LEVELS if task.endswith(level)), "")
        published = PUBLISHED.get(task.removesuffix(level))
        number = None if published is None or not level else published[LEVELS.index(level)]
        row: dict[str, Any] = {"task": task, "memory": memory, "seeds": len(runs), "final": final}
        row |= {"steps": float(np.mean([run.summary["env_steps"] for run in runs]))}
        row |= {"seconds": float(np.mean([run.summary["seconds"] for run in runs]))}
        row |= {"published": "" if number is None else number}
        out.append(row | {"reached": "" if number is None else "yes" if final >= number - 0.005 else "no"})
    return out
