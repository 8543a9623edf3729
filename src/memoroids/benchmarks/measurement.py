"""A measured time with its references and limits, as text and as a row of JSON."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from memoroids.benchmarks.timing import medians


@dataclass(frozen=True)
class Measurement:
    """Seconds of `what` and of what it is compared with, all timed alternately in one process.

    `references` are other implementations of the same computation; `limits` are lower bounds for any implementation.
    `compile` holds seconds of compilation, `bytes` peak or temporary memory, both by name.
    """

    what: str
    seconds: float
    references: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    compile: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)

    def lines(self) -> str:
        """As text, with a line for each reference (its ratio to ours) and for each limit (the ratio of ours to it)."""
        out = [f"{self.what:64}{time_text(self.seconds):>12}{self._rest('ours')}"]
        for name, seconds in self.references.items():
            out.append(f"    {name:60}{time_text(seconds):>12}  {seconds / self.seconds:8.2f} × ours{self._rest(name)}")
        for name, seconds in self.limits.items():
            out.append(
                f"    limit: {name:53}{time_text(seconds):>12}  ours {self.seconds / seconds:8.2f} ×{self._rest(name)}"
            )
        return "\n".join(out)

    def _rest(self, name: str) -> str:
        compiled = f"  compiled in {self.compile[name]:.2f} s" if name in self.compile else ""
        if name not in self.bytes:
            return compiled
        size = self.bytes[name] / 2**20
        return f"{compiled}  {size:,.{0 if size >= 10 else 2}f} MiB"

    def row(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)


def time_text(seconds: float) -> str:
    """Seconds in milliseconds or microseconds, with their unit."""
    return f"{1e3 * seconds:,.2f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:,.1f} µs"


def show(figures: Iterable[Measurement]) -> list[dict[str, Any]]:
    """Prints each measurement as soon as it is available; returns them as rows."""
    rows = []
    for figure in figures:
        print(figure.lines(), flush=True)
        rows.append(figure.row())
    return rows


def copy_calls(moved: int) -> dict[str, Any]:
    """Functions that move `moved` bytes, half read, half written, by a jitted x + 1: into a new array and in place."""
    x = jnp.zeros(max(1, moved // 2 // 4), jnp.float32)
    fresh, donated = jax.jit(lambda x: x + 1), jax.jit(lambda x: x + 1, donate_argnums=0)
    box = [x + 1]

    def in_place() -> jax.Array:
        box[0] = donated(box[0])
        return box[0]

    return {"copy of the same size, fresh": lambda: fresh(x), "copy of the same size, donated": in_place}


def measure(
    what: str,
    calls: dict[str, Any],
    repeats: int,
    *,
    limits: dict[str, Any],
    compile: dict[str, float] | None = None,
    bytes: dict[str, int] | None = None,
) -> Measurement:
    """Times `calls`, of which "ours" is the measurement and the others its references, alternately with `limits`."""
    times = medians({**calls, **limits}, repeats)
    return Measurement(
        what,
        times["ours"],
        {name: times[name] for name in calls if name != "ours"},
        {name: times[name] for name in limits},
        compile or {},
        bytes or {},
    )
