"""Options of the commands that start processes of runs: how many, and what runs them."""

from dataclasses import dataclass, field
from typing import Any, Literal


def check_counts(options: Any, *names: str) -> None:
    """Raises `ValueError` for the first of these options that is given and below 1."""
    for name in names:
        if (value := getattr(options, name)) is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """Options of every command that starts processes of runs. Raises `ValueError` for numbers out of range."""

    jobs: int | None = None
    """Processes at a time; by default one for each core."""
    executor: Literal["local", "slurm", "ray"] = "local"
    """What runs the processes: this machine, SLURM (from where sbatch is) or a Ray cluster, on a shared file system."""
    resources: dict[str, Any] = field(default_factory=dict)
    """What each process takes, as pairs of a name and a value: for slurm options of sbatch, as in --resources partition
    gpu time 60; for ray num_cpus, num_gpus or a resource of the nodes, as in --resources num_gpus 0.25."""

    def __post_init__(self) -> None:
        check_counts(self, "jobs")
