"""The benchmarks of `memoroids bench`, one module for each question."""

import os
import platform
from importlib import import_module
from pathlib import Path
from typing import Any

LIMITS = ("recurrence", "attention", "memories", "tape", "long_returns", "replay", "acting", "update", "device")
"""The benchmarks that compare a measured time with a limit of the machine."""

MODULES = {
    "tape": "long_tapes",
    "replay": "replay_draws",
    "acting": "policy_step",
    "device": "device_episode",
    "returns": "padded_returns",
    "export": "exported_steps",
}
"""The modules whose names differ from their benchmark's."""


def run(what: str, repeats: int, output: Path | None = None) -> dict[str, Any]:
    """Runs the benchmark `what`, or each of `LIMITS` for "limits", and prints the results as they are measured.

    **Arguments:** `repeats`, timed repetitions; `output`, the directory for the files of the benchmark "returns".
    **Returns:** a JSON object: the machine, the repetitions and, for each benchmark, its rows.
    """
    from memoroids.benchmarks.measurement import show

    machine = describe_machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    rows = {}
    for question in LIMITS if what == "limits" else (what,):
        module = import_module(f"memoroids.benchmarks.{MODULES.get(question, question)}")
        print(f"\n# {question}: {(module.__doc__ or '').splitlines()[0]}", flush=True)
        if question in LIMITS:
            rows[question] = show(module.figures(repeats))
        else:
            rows[question] = module.run(repeats) if output is None else module.run(repeats, output)
    return {"machine": machine, "repeats": repeats, "rows": rows}


def describe_machine() -> dict[str, Any]:
    """What the measured times depend on: device, cores, versions and allocator."""
    import jax

    from memoroids._util.allocator import keep_freed_memory
    from memoroids._version import __version__
    from memoroids.algebra.recurrence_backends import default_backend

    return {
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "jax": jax.__version__,
        "memoroids": __version__,
        "recurrence": default_backend(),
        "freed memory kept": keep_freed_memory(),
    }
