"""A cell of a grid that trains nothing: writes the files of a finished run, with the standard library only.

As the process of a cell it does what `orders.json` beside the grid says for its name, and records its start in
`starts`.
"""

import csv
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memoroids.runs.metrics import FIELDS

PROGRAM = f"import runpy\nrunpy.run_path({__file__!r}, run_name='__main__')\n"
"""The program of a cell's process that runs this module."""
NASTY = 'ValueError: <script>alert("&")</script>'


def every(settings: dict[str, Any]) -> int:
    """Episodes between evaluations."""
    return settings["evaluation"]["eval_every"] or 10


def returns_of(settings: dict[str, Any]) -> list[float]:
    """A learning curve that depends on the settings only: tapes and larger seeds are better."""
    replay = settings["replay"]
    level = 0.5 if replay["batching"] == "tape" else 0.01 * replay["segment_length"] ** 0.5
    points = range(max(1, (settings["budget"]["train_episodes"] or 100) // every(settings)))
    return [level + 0.1 * settings["seed"] + 0.05 * point for point in points]


def write_run(
    directory: Path,
    settings: dict[str, Any],
    returns: Sequence[float],
    share: Sequence[float] | None = (0.4, 0.3, 0.2, 0.1),
    *,
    seconds: float = 2.0,
    rml: int | str | None = 2,
) -> None:
    """Writes a finished cell: metrics, summary, sensitivity by age (None: not measured) and status."""
    run = directory / "run"
    write_metrics(run, settings, returns, seconds)
    summary = {"final_return": returns[-1] + 0.125, "target_return": 0.95}
    (run / "summary.json").write_text(json.dumps(summary))
    if share is not None:
        with (run / "sensitivity.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("age", "share", "cumulative"))
            writer.writerows((age, value, sum(share[: age + 1])) for age, value in enumerate(share))
        beyond = None if rml is None else 0.0 if rml == "episode" else sum(share[int(rml) + 1 :])
        found = {"episodes": 2, "left_out": 0, "vml": {"0.5": 1, "0.95": len(share) - 1, "0.99": len(share) - 1}}
        found |= {"rml": rml, "beyond_rml": beyond, "beyond_segment": {}, "first_share": share[-1]}
        (run / "sensitivity.json").write_text(json.dumps(found))
    finish(directory, {"status": "done", "seconds": seconds})


def write_metrics(
    run: Path,
    settings: dict[str, Any],
    returns: Sequence[float],
    seconds: float = 2.0,
    train_returns: Sequence[float] | None = None,
    steps: int | None = None,
) -> None:
    """Writes the metrics of a run, one row for each evaluation; training returns are as good unless they are given.

    `steps`: environment steps of each row; None: 51 for each episode.
    """
    run.mkdir(parents=True)
    with (run / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for i, value in enumerate(returns, start=1):
            episode = i * every(settings)
            row = dict.fromkeys(FIELDS, 0.25) | {"episode": episode, "updates": episode}
            row |= {"env_steps": 51 * episode if steps is None else i * steps}
            # A fifth of the slots of segments is padding.
            slots = 1_000 * episode
            row |= {"slots": slots, "transitions": slots * (1.0 if settings["replay"]["batching"] == "tape" else 0.8)}
            row |= {"train_return": value if train_returns is None else train_returns[i - 1]}
            writer.writerow(row | {"eval_return": value, "skipped": 0, "seconds": seconds * i / len(returns)})


def finish(directory: Path, how: dict[str, Any]) -> None:
    """Writes the result of a cell, atomically."""
    (directory / "partial").write_text(json.dumps(how))
    (directory / "partial").replace(directory / "cell.json")


def obey(order: str, directory: Path, settings: dict[str, Any]) -> None:
    """Ends this process, or lets it hang, according to its order."""
    match order:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "be interrupted":
            sys.exit(130)
        case "refuse":
            finish(directory, {"status": "failed", "reason": NASTY})
            sys.exit(1)
        case "raise":
            print("about to fail", flush=True)
            raise ZeroDivisionError("divided by nothing")
        case "be silent":
            os._exit(3)
        case "hang":
            write_metrics(directory / "run", settings, returns_of(settings)[:1])
            time.sleep(600)


def main(*directories: Path) -> None:
    """Runs the cells in these directories, one after the other, each according to its order."""
    for directory in directories:
        run(directory, len(directories))


def run(directory: Path, together: int) -> None:
    """Runs a cell; `together`: the number of cells of this process."""
    place = directory.parents[2]
    settings = json.loads((directory / "settings.json").read_text())
    with (place / "starts").open("a") as file:
        cache = os.path.relpath(os.environ["JAX_COMPILATION_CACHE_DIR"], directory.parents[1])
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        start = {"name": directory.name, "pid": os.getpid(), "cache": cache, "cores": cores, "together": together}
        file.write(json.dumps(start) + "\n")
    started = [json.loads(line)["name"] for line in (place / "starts").read_text().splitlines()].count(directory.name)
    orders = json.loads((place / "orders.json").read_text()) if (place / "orders.json").exists() else {}
    order = orders.get(directory.name, "")
    if order.startswith("reach "):
        write_run(directory, settings, [float(order.removeprefix("reach "))] * 4)
        return
    if order.startswith("stay at "):
        write_metrics(directory / "run", settings, [float(order.removeprefix("stay at "))] * 4)
        time.sleep(600)
    if started == 1 or not order.endswith(" once"):
        obey(order.removesuffix(" once"), directory, settings)
    write_run(directory, settings, returns_of(settings))
    with (place / "ends").open("a") as file:
        file.write(f"{directory.name}\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
