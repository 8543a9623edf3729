"""Timing of compiled functions: medians over alternating repetitions."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np


def compile_seconds(lowered: Any) -> tuple[float, Any]:
    """Compiles a lowered program. Returns the seconds it took and the compiled program."""
    start = time.perf_counter()
    compiled = lowered.compile()
    return time.perf_counter() - start, compiled


def compile_calls(functions: Mapping[str, Callable[..., Any]], *inputs: Any) -> tuple[dict[str, Any], dict[str, float]]:
    """Compiles each function for `inputs`. Returns calls with these inputs bound, and seconds of compilation."""
    calls, seconds = {}, {}
    for name, function in functions.items():
        seconds[name], compiled = compile_seconds(jax.jit(function).lower(*inputs))
        calls[name] = partial(compiled, *inputs)
    return calls, seconds


def medians(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds per call; the functions alternate, so that noise of the machine affects all of them equally."""
    for function in functions.values():
        jax.block_until_ready(function())
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}
