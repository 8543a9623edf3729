"""Cells of grids: a run each, with its position in the grid."""

from dataclasses import dataclass

from memoroids.runs.settings import TrainConfig

TAPE = "TBB"
"""What tape-based batching is called in figures and tables, in the paper's terms."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid: its name, its position in the grid, and its settings."""

    name: str
    task: str
    memory: str
    batching: str
    seed: int
    config: TrainConfig


def batching_label(config: TrainConfig) -> str:
    """What the batching of a run is called in figures and tables, in the paper's terms."""
    replay = config.replay
    return TAPE if replay.batching == "tape" else f"SBB L={replay.segment_length}"
