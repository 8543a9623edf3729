"""Finished runs for tests that start from one: each test process trains once per settings and copies the result."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import to_json
from memoroids.runs.train import train

Finished = Callable[[TrainConfig, Path], Path]
"""Writes a finished run with these settings to a directory that is the test's own."""


def trained_once(root: Path) -> Finished:
    def copied(settings: TrainConfig, run_dir: Path) -> Path:
        done = root / hashlib.sha256(to_json(settings).encode()).hexdigest()
        if not done.exists():
            begun = done.with_suffix(".begun")
            train(settings, begun)
            begun.rename(done)
        return shutil.copytree(done, run_dir)

    return copied
