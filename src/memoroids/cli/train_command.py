"""`memoroids train` and `memoroids resume`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memoroids.cli.parse import RunDirectory, Trust, load_trusted_config, parse
from memoroids.cli.run_names import new_run_dir

if TYPE_CHECKING:
    from memoroids.runs.settings import TrainConfig


@dataclass(frozen=True)
class ResumeOptions:
    """Options of `memoroids resume`; those of `memoroids train` are the settings of a run, `TrainConfig`."""

    run: RunDirectory
    trust: Trust = False


def train(arguments: list[str]) -> None:
    """Trains a new run."""
    config = read_settings(arguments)
    run_dir = config.run_dir or new_run_dir(config)
    _train(config.replace(run_dir=run_dir), run_dir, resume=False)


def resume(arguments: list[str]) -> None:
    """Continues a run."""
    options: ResumeOptions = parse(ResumeOptions, "resume", arguments)
    _train(load_trusted_config(options.run, trust=options.trust), options.run, resume=True)


def read_settings(arguments: list[str]) -> "TrainConfig":
    """The settings of a new run: its preset's, with those of the command line in their place.

    Raises `ValueError` for an unknown environment, memory, preset or algorithm, `UsageError` for any other option.
    """
    from memoroids.cli.setting_flags import flagged, plain, without_prefix
    from memoroids.envs import resolve
    from memoroids.memory.registry import resolve_memory
    from memoroids.runs.presets import PRESETS, named_by, preset
    from memoroids.runs.settings import TrainConfig

    # The preset, which supplies tyro's defaults, depends on these options: they are read before tyro reads all.
    asked: dict[str, str] = {"preset": PRESETS[0]}
    options = ("env", "memory", "algorithm", "preset")
    for i, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        key = name.removeprefix("--")
        if name.startswith("--") and key in options:
            asked[key] = value or next(iter(arguments[i + 1 : i + 2]), "")
    asked = {name: TrainConfig().get(name) for name in options[:3]} | named_by(asked["preset"]) | asked
    helping = any(argument in ("-h", "--help") for argument in arguments)
    if not helping:
        resolve_memory(asked["memory"])
    values = preset(asked["preset"], asked["env"], asked["memory"], asked["algorithm"])
    sizes = values.get("memory_sizes", {})
    chosen = TrainConfig.of(env=asked["env"], memory=asked["memory"], algorithm=asked["algorithm"], **values)
    arguments = without_prefix(arguments, asked["algorithm"])
    default = flagged(chosen)
    config = plain(parse(type(default), "train", arguments, default))
    return config.replace(memory_sizes=sizes | config.network.memory_sizes, env=resolve(config.env.id))


def _train(config: "TrainConfig", run_dir: Path, *, resume: bool) -> None:
    """Trains with a progress display, then prints the results; exits with code 130 if the run was interrupted."""
    from memoroids.cli.process import prepare_process
    from memoroids.cli.progress_display import displayed
    from memoroids.runs import train as training
    from memoroids.runs.placement import join_processes

    prepare_process(overlap=config.collection.overlap)
    join_processes()
    with displayed(config, run_dir, resume=resume) as (show, conclude):
        outcome = training.train(config, run_dir, resume=resume, watch=show)
    conclude(outcome)
    if outcome.final is None:
        sys.exit(130)
