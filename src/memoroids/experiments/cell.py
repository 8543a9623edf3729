"""The program of a process that runs one cell of a grid: `python -m memoroids.experiments.cell CELL_DIRECTORY`."""

import json
import sys
import traceback
from pathlib import Path

from memoroids._util.files import atomic_write_text
from memoroids.runs.settings_file import from_json

SETTINGS, DONE, LOG = "settings.json", "cell.json", "log.txt"
RUN = "run"
INTERRUPTED = 130
"""Exit status of a cell that was interrupted before it was done."""


def write_json(path: Path, value: object) -> None:
    """Writes `value` as JSON, atomically."""
    atomic_write_text(path, json.dumps(value, indent=2) + "\n")


def main(directory: Path) -> None:
    """Trains the cell in `directory`, measures its sensitivity and writes its result; exits with 1 if training fails.

    An interrupted run is resumed.
    """
    from memoroids._util.messages import one_line
    from memoroids._util.provenance import environment
    from memoroids.envs import EnvironmentFault
    from memoroids.runs import run_sensitivity as sensitivity
    from memoroids.runs.checkpoint import CheckpointError
    from memoroids.runs.progress import TrainingError
    from memoroids.runs.run_directory import CONFIG, read_summary
    from memoroids.runs.train import train

    foreseen = (ValueError, EnvironmentFault, CheckpointError, TrainingError, MemoryError, OSError)
    try:
        config = from_json((directory / SETTINGS).read_text())
        run_dir = directory / RUN
        outcome = train(config, run_dir, resume=(run_dir / CONFIG).exists())
        if outcome.final is None:
            sys.exit(INTERRUPTED)
    except Exception as error:
        if not isinstance(error, foreseen):
            traceback.print_exc()
        reason = one_line(error)
        write_json(directory / DONE, {"status": "failed", "reason": reason})
        print(reason, file=sys.stderr)
        sys.exit(1)
    summary = read_summary(run_dir)
    seconds = summary["seconds"] if summary else None  # including those before it was resumed
    try:
        if config.agent_type().traits.action_values:
            sensitivity.run(run_dir, config.evaluation.eval_episodes, 0, None)
    except Exception:  # the finished run is kept without its sensitivity
        traceback.print_exc()
    write_json(directory / DONE, {"status": "done", "seconds": seconds, "environment": environment()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
