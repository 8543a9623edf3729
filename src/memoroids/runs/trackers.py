"""Experiment trackers: TensorBoard and Weights & Biases."""

import importlib
import math
from pathlib import Path
from typing import Any

from memoroids._util.messages import one_line
from memoroids.runs.metrics import ABSENT


class Trackers:
    """Sends rows of metrics to TensorBoard, Weights & Biases, both or neither.

    Raises `ValueError` if the package of a requested tracker is not installed, or Weights & Biases cannot be reached.
    """

    def __init__(self, run_dir: Path, config: dict[str, Any], *, tensorboard: bool, wandb: bool):
        self._tensorboard = self._wandb = None
        modules = [_extra(name) for name, wanted in (("tensorboardX", tensorboard), ("wandb", wandb)) if wanted]
        # Nothing is written before all imports have succeeded: a run that cannot start must not create its directory.
        if tensorboard:
            self._tensorboard = modules[0].SummaryWriter(str(run_dir / "tensorboard"))
        if wandb:
            run_dir.mkdir(parents=True, exist_ok=True)
            try:
                self._wandb = modules[-1].init(project="memoroids", dir=str(run_dir), config=config)
            except Exception as error:
                raise ValueError(
                    f"--wandb could not start ({one_line(error)}): run `wandb login` first, or set WANDB_MODE=offline"
                ) from error

    def write(self, row: dict[str, float]) -> None:
        """Sends a row of metrics, with its training episode as the step, without what the agent does not have."""
        row = {name: value for name, value in row.items() if name not in ABSENT or not math.isnan(value)}
        if self._tensorboard is not None:
            for name, value in row.items():
                self._tensorboard.add_scalar(name, value, int(row["episode"]))
        if self._wandb is not None:
            self._wandb.log(row, step=int(row["episode"]))

    def close(self) -> None:
        """Sends what is still buffered and ends the tracking."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def _extra(module: str) -> Any:
    name = module.removesuffix("X").lower()
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"--{name} needs the extra: pip install 'memoroids[{name}]'") from error
