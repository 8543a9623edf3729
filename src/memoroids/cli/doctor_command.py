"""`memoroids doctor`: what was measured in a run, and what that says about what goes wrong in it."""

from dataclasses import dataclass
from pathlib import Path

from memoroids.cli.parse import RunDirectory, parse


@dataclass(frozen=True)
class DoctorOptions:
    """Options of `memoroids doctor`."""

    run: RunDirectory


def doctor(arguments: list[str]) -> None:
    """Prints the figures and the findings of a run, of each of its seeds if there are several."""
    options: DoctorOptions = parse(DoctorOptions, "doctor", arguments)
    from memoroids.runs.check_up import seeds_of

    for number, path in enumerate(seeds_of(options.run)):
        if number:
            print()
        _print_run(path)


def _print_run(path: Path) -> None:
    from memoroids.runs.check_up import measured, read_record
    from memoroids.runs.doctor import examine

    record = read_record(path)
    config = record.config
    print(
        f"{path}: {config.algorithm} with {config.network.memory} on {config.env.id}, seed {config.seed}, "
        f"{record.share:.0%} of training"
    )
    for label, line in measured(record):
        print(f"  {label:25}{line}")
    found = examine(record)
    if not found:
        print("nothing found")
    for finding in found:
        print(f"found: {finding.name}: {finding.line}")
        print(f"  {', '.join(f'{name} {value:.4g}' for name, value in finding.figures.items())}")
