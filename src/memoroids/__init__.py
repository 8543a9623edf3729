"""Recurrent reinforcement learning without segments: memory models as monoids, whole episodes on a tape.

Public names are loaded when they are first asked for, so that importing the package, or a subpackage that needs no JAX,
does not import JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from memoroids._version import __version__

if TYPE_CHECKING:
    from memoroids.algebra.linear_recurrence import linear_recurrence
    from memoroids.algebra.monoid import Monoid
    from memoroids.algebra.resettable import Resettable
    from memoroids.algebra.scan import scan
    from memoroids.memory.chunks import in_chunks
    from memoroids.memory.memoroid import Memoroid, Memory, Stack
    from memoroids.runs.run import load
    from memoroids.tape import Tape
    from memoroids.testing import check_memory, check_monoid
    from memoroids.training import train

__all__ = [
    "Memoroid",
    "Memory",
    "Monoid",
    "Resettable",
    "Stack",
    "Tape",
    "__version__",
    "check_memory",
    "check_monoid",
    "in_chunks",
    "linear_recurrence",
    "load",
    "scan",
    "train",
]

_MODULES = {
    "Memoroid": "memoroids.memory.memoroid",
    "Memory": "memoroids.memory.memoroid",
    "Monoid": "memoroids.algebra.monoid",
    "Resettable": "memoroids.algebra.resettable",
    "Stack": "memoroids.memory.memoroid",
    "Tape": "memoroids.tape",
    "check_memory": "memoroids.testing",
    "check_monoid": "memoroids.testing",
    "in_chunks": "memoroids.memory.chunks",
    "linear_recurrence": "memoroids.algebra.linear_recurrence",
    "load": "memoroids.runs.run",
    "scan": "memoroids.algebra.scan",
    "train": "memoroids.training",
}
"""Public name → the module that defines it."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)  # later look-ups do not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
