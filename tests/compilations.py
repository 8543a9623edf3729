"""How many programs JAX has compiled in this process."""

import jax

_compiled = [0]


def _listen(event: str, seconds: float, **details: object) -> None:
    del seconds, details
    _compiled[0] += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_listen)


def compiled() -> int:
    return _compiled[0]


def compiled_between(moments: list[tuple[int, int]], first: int, last: int) -> int:
    """Programs compiled between two episodes, of pairs (episode, `compiled()`) as a watcher collected them."""
    counts = [count for episode, count in moments if first <= episode <= last]
    assert len(counts) > 2, f"too few moments between episodes {first} and {last}: {moments}"
    return counts[-1] - counts[0]
