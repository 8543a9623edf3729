"""`memoroids bench`: how fast the parts are on this machine."""

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from memoroids.cli.parse import parse

REPEATS = 20


@dataclass(frozen=True)
class BenchOptions:
    """Options of `memoroids bench`. Raises `ValueError` for options that do not go together or are out of range."""

    what: Annotated[
        Literal[
            "limits",
            "recurrence",
            "attention",
            "memories",
            "tape",
            "long_returns",
            "replay",
            "acting",
            "update",
            "device",
            "returns",
            "batching",
            "environments",
            "export",
        ],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="WHAT"),
    ] = "limits"
    """limits: all from recurrence to device; recurrence: linear recurrences against copying memory; attention: matrix
    states in chunks; memories: each memory over a sequence; tape: tapes of up to 2^20 slots; long_returns: returns over
    1,000,000 slots; replay: sampling from 4,000,000; acting: one step of the policy; update: DQN updates against matrix
    products; device: an episode with its update; returns: memoroids against padding and loops; batching: where the time
    of a training episode goes; environments: device tasks against POPGym's Python; export: a step of
    exported agents (extra onnx)."""
    repeats: int = REPEATS
    """Timed repetitions; the median is printed."""
    output: Path | None = None
    """Directory to write the measurements to, as a table and a figure (returns only)."""
    json: bool = False
    """Print one JSON object on standard output, and the table on standard error."""
    compare: tuple[Path, Path] | None = None
    """Measure nothing, but print two files of --json side by side, the older one first."""

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")
        if self.output is not None and self.what != "returns":
            raise ValueError(f"output is for returns only, got it for {self.what}")
        if self.compare is not None and (self.json or self.what != "limits" or self.repeats != REPEATS):
            raise ValueError("compare measures nothing: it goes with no other option")


def bench(arguments: list[str]) -> None:
    """Runs one benchmark or all of `limits`, or compares two files of an earlier time."""
    options: BenchOptions = parse(BenchOptions, "bench", arguments)
    if options.compare is not None:
        from memoroids.benchmarks.history import compare

        print(compare(*options.compare))
        return
    from memoroids import benchmarks
    from memoroids._util.allocator import keep_freed_memory

    keep_freed_memory()
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        measured = benchmarks.run(options.what, options.repeats, options.output)
    if options.json:
        print(json.dumps(measured))
