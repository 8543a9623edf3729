"""One measured figure beside its references and limits, as lines to read and as a row of JSON."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from memoroids.benchmarks.timing import medians


@dataclass(frozen=True)
class Measurement:
    """Seconds of `what`, and of what stands beside it, all measured in turns in one process.

    `references` are other ways to the same answer; `limits` are what no way can beat. `compile` holds seconds, `bytes`
    what else was measured: peak or temporary memory.
    """

    what: str
    seconds: float
    references: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    compile: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)

    def lines(self) -> str:
        """What, with one line for each reference (how many times ours) and each limit (how many times it ours is)."""
        out = [f"{self.what:64}{_time(self.seconds):>12}{self._rest('ours')}"]
        for name, seconds in self.references.items():
            out.append(f"    {name:60}{_time(seconds):>12}  {seconds / self.seconds:8.2f} × ours{self._rest(name)}")
        for name, seconds in self.limits.items():
            out.append(
                f"    limit: {name:53}{_time(seconds):>12}  ours {self.seconds / seconds:8.2f} ×{self._rest(name)}"
            )
        return "\n".join(out)

    def _rest(self, name: str) -> str:
        compiled = f"  compiled in {self.compile[name]:.2f} s" if name in self.compile else ""
        return compiled + (f"  {self.bytes[name] / 2**20:,.0f} MiB" if name in self.bytes else "")

    def row(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return dataclasses.asdict(self)


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:,.1f} µs"


def show(figures: Iterable[Measurement]) -> list[dict[str, Any]]:
    """Prints each figure as soon as it is measured; returns them as rows."""
    rows = []
    for figure in figures:
        print(figure.lines(), flush=True)
        rows.append(figure.row())
    return rows


def copy_calls(moved: int) -> dict[str, Any]:
    """Functions that move `moved` bytes, half read and half written, by a jitted x + 1: to a new array and in place."""
    x = jnp.zeros(max(1, moved // 2 // 4), jnp.float32)
    fresh, donated = jax.jit(lambda x: x + 1), jax.jit(lambda x: x + 1, donate_argnums=0)
    box = [x + 1]

    def in_place() -> jax.Array:
        box[0] = donated(box[0])
        return box[0]

    return {"copy of as many bytes, fresh": lambda: fresh(x), "copy of as many bytes, donated": in_place}


def measure(
    what: str,
    calls: dict[str, Any],
    repeats: int,
    *,
    limits: dict[str, Any],
    compile: dict[str, float] | None = None,
    bytes: dict[str, int] | None = None,
) -> Measurement:
    """Times `calls`, of which "ours" is the figure and the others its references, in turns with `limits`."""
    times = medians({**calls, **limits}, repeats)
    return Measurement(
        what,
        times["ours"],
        {name: times[name] for name in calls if name != "ours"},
        {name: times[name] for name in limits},
        compile or {},
        bytes or {},
    )
