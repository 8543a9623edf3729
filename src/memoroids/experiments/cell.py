"""The program of a process that runs cells of a grid: `python -m memoroids.experiments.cell DIRECTORY …`."""

import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from memoroids._util.files import atomic_write_text
from memoroids.runs.run_directory import CONFIG
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import from_json, with_typed_agent

SETTINGS, DONE = "settings.json", "cell.json"
RUN = "run"
INTERRUPTED = 130
"""Exit status of a cell that was interrupted before it was done."""
BUSY_SECONDS = 10.0
"""How long a cell waits that another process is still writing, before it is tried again."""


def write_json(path: Path, value: object) -> None:
    """Writes `value` as JSON, atomically."""
    atomic_write_text(path, json.dumps(value, indent=2) + "\n")


def main(*directories: Path) -> None:
    """Trains the cells in these directories, measures their sensitivity and writes their results.

    Interrupted runs are resumed. Several cells share one compiled program; if they cannot be trained
    together, none of them has a result. The process exits with 1 if training fails.
    """
    from memoroids._util.locks import Held
    from memoroids._util.messages import one_line
    from memoroids.envs import EnvironmentFault
    from memoroids.runs.checkpoint import CheckpointError
    from memoroids.runs.progress import TrainingError

    foreseen = (ValueError, EnvironmentFault, CheckpointError, TrainingError, MemoryError, OSError)
    try:
        configs = [with_typed_agent(from_json((directory / SETTINGS).read_text())) for directory in directories]
        finished = _train(configs, [directory / RUN for directory in directories])
    except Exception as error:
        if isinstance(error.__cause__, Held):
            # Of a job that was lost the process may live on for a while, as on a node that only lost its connection.
            print(one_line(error), file=sys.stderr)
            time.sleep(BUSY_SECONDS)
            sys.exit(INTERRUPTED)
        if not isinstance(error, foreseen):
            traceback.print_exc()
        reason = one_line(error)
        if len(directories) == 1:
            write_json(directories[0] / DONE, {"status": "failed", "reason": reason})
        print(reason, file=sys.stderr)
        sys.exit(1)
    for directory, config, over in zip(directories, configs, finished, strict=True):
        if over:
            _finish(directory, config)
    if not all(finished):
        sys.exit(INTERRUPTED)


def _train(configs: Sequence[TrainConfig], run_dirs: Sequence[Path]) -> list[bool]:
    """Trains the runs; returns of each whether it is finished."""
    from memoroids.runs.train import train, train_through_one_program

    if len(configs) > 1:
        outcomes = train_through_one_program(configs, run_dirs)
    else:
        outcomes = [train(configs[0], run_dirs[0], resume=(run_dirs[0] / CONFIG).exists())]
    return [outcome.final is not None for outcome in outcomes]


def _finish(directory: Path, config: TrainConfig) -> None:
    """Measures the sensitivity of a finished run, where its agent has action values, and writes the cell's result."""
    from memoroids._util.provenance import environment
    from memoroids.runs import run_sensitivity as sensitivity
    from memoroids.runs.run_directory import read_summary

    summary = read_summary(directory / RUN)
    seconds = summary["seconds"] if summary else None  # including those before it was resumed
    try:
        if config.agent_type().traits.action_values:
            sensitivity.run(directory / RUN, config.evaluation.eval_episodes, 0, None)
    except Exception:  # the finished run is kept without its sensitivity
        traceback.print_exc()
    write_json(directory / DONE, {"status": "done", "seconds": seconds, "environment": environment()})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
