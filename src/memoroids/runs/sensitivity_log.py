"""sensitivity_training.csv: how far back values depend on observations over the course of training."""

import csv
from pathlib import Path

import numpy as np

from memoroids._util.files import atomic_write
from memoroids.analysis.sensitivity import Profile

LOG_FIELDS = ("episode", "age", "share")
"""The columns of sensitivity_training.csv."""


class SensitivityLog:
    """Writes profiles during training as rows (training episode, age, share) and flushes each profile.

    With `keep` above 0, an existing file is continued: its rows up to training episode `keep` are kept, the rest is
    dropped. Raises `ValueError` if that file is missing or invalid.
    """

    def __init__(self, path: Path, keep: int = 0):
        kept = read_log(path, keep) if keep else {}
        self.episode = max(kept, default=0)
        """The training episode of the newest profile, 0 if there is none yet."""
        with atomic_write(path) as fresh, fresh.open("w", newline="") as self._file:
            csv.writer(self._file).writerow(LOG_FIELDS)
            for episode, share in kept.items():
                self._rows(episode, share)
        self._file = path.open("a", newline="")

    def write(self, episode: int, profile: Profile) -> None:
        """Appends the profile measured after a training episode."""
        self._rows(episode, profile.share)
        self._file.flush()
        self.episode = episode

    def _rows(self, episode: int, share: np.ndarray) -> None:
        csv.writer(self._file).writerows((episode, age, float(value)) for age, value in enumerate(share))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_log(path: Path, until: int | None = None) -> dict[int, np.ndarray]:
    """Reads a log as a mapping from training episode to its share by age, (oldest age + 1,) float64.

    With `until`, only training episodes up to this one are read, and an incomplete last line is ignored. Raises
    `ValueError` naming the file and the first invalid line.
    """
    if not path.exists():
        raise ValueError(f"{path} is missing")
    shares: dict[int, list[float]] = {}
    with path.open(newline="") as file:
        if tuple(file.readline().rstrip().split(",")) != LOG_FIELDS:
            raise ValueError(f"{path}: the header is not that of a sensitivity log")
        for number, line in enumerate(file, start=2):
            if until is not None and not line.endswith("\n"):
                break  # cut off when the run was killed, so newer than any checkpoint
            try:
                episode, age, share = line.split(",")
                if until is not None and int(episode) > until:
                    break
                ages = shares.setdefault(int(episode), [])
                if int(age) != len(ages):
                    raise ValueError(f"age {age} follows {len(ages) - 1}")
                ages.append(float(share))
            except ValueError as error:
                raise ValueError(f"{path}: line {number}: {error}") from error
    return {episode: np.asarray(ages) for episode, ages in shares.items()}
