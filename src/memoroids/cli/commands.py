"""The commands of `memoroids`: what each does, in one line, and the function that runs it."""

from typing import NamedTuple


class Command(NamedTuple):
    """One command of `memoroids`."""

    summary: str
    """The line that `memoroids --help` and the command's own `--help` show."""
    module: str
    """The module of its function, imported only when the command is run."""
    function: str
    """The name of its function, which takes the arguments that follow the command's name."""
    opens_runs: bool = False
    """Whether it opens an existing run or grid, which may come from somebody else; see `memoroids.cli.parse`."""


COMMANDS = {
    "train": Command(
        "Train a recurrent agent (or, with --memory mlp, a memoryless one) on an environment.",
        "memoroids.cli.train_command",
        "train",
    ),
    "resume": Command(
        "Continue a run from its newest checkpoint.",
        "memoroids.cli.train_command",
        "resume",
        opens_runs=True,
    ),
    "evaluate": Command(
        "Evaluate a run's newest checkpoint: mean return and 95% interval of episodes on fresh seeds.",
        "memoroids.cli.inspect_commands",
        "evaluate",
        opens_runs=True,
    ),
    "sensitivity": Command(
        "Measure how far back a run's values depend on observations, and how far back its rewards do.",
        "memoroids.cli.inspect_commands",
        "sensitivity",
        opens_runs=True,
    ),
    "doctor": Command(
        "Say what goes wrong in a run, from what it measured: a line for each finding, with what to try.",
        "memoroids.cli.doctor_command",
        "doctor",
        opens_runs=True,
    ),
    "export": Command(
        "Write a run's agent to a folder that acts without this package or JAX, checked against the agent itself.",
        "memoroids.cli.export_command",
        "export",
        opens_runs=True,
    ),
    "look": Command(
        "Show on one page what a run's memory does in an episode: what moved each action, and what if it had differed.",
        "memoroids.cli.look_command",
        "look",
        opens_runs=True,
    ),
    "record": Command(
        "Record an episode of a run's agent as a GIF, an MP4 or text: the best, worst or middle one of several.",
        "memoroids.cli.record_command",
        "record",
        opens_runs=True,
    ),
    "watch": Command(
        "Serve a live page of runs under way, to this machine alone: curves, speeds, warnings and findings.",
        "memoroids.cli.watch_command",
        "watch",
        opens_runs=True,
    ),
    "reproduce": Command(
        "Run the grid behind one of the paper's figures, resuming an unfinished one, and write its report.",
        "memoroids.cli.experiment_commands",
        "reproduce",
    ),
    "grid": Command(
        "Run a grid of your own, all combinations of the settings in a file, or resume it, and write its report.",
        "memoroids.cli.experiment_commands",
        "grid",
    ),
    "tune": Command(
        "Search settings with Optuna, in several processes if you like, and compare what it found on fresh seeds.",
        "memoroids.cli.tune_command",
        "tune",
    ),
    "gap": Command(
        "Measure what memories are worth on an environment, and what they cost on its twin that hides nothing.",
        "memoroids.cli.experiment_commands",
        "gap",
    ),
    "report": Command(
        "Rewrite the report of a grid, finished or not: one HTML page, figures and CSV tables.",
        "memoroids.cli.experiment_commands",
        "report",
        opens_runs=True,
    ),
    "compare": Command(
        "Compare runs: a table of their results, and their learning curves in one figure.",
        "memoroids.cli.inspect_commands",
        "compare",
        opens_runs=True,
    ),
    "bench": Command(
        "Run benchmarks; each result is printed beside references and limits measured in the same process.",
        "memoroids.cli.bench_command",
        "bench",
    ),
    "list": Command(
        "List the environments, memories or presets that can be named on the command line.",
        "memoroids.cli.list_command",
        "list_names",
    ),
}
