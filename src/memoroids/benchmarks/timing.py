"""Timing of compiled functions: medians of interleaved repetitions."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np


def compile_seconds(lowered: Any) -> tuple[float, Any]:
    """Seconds that XLA takes for a lowered program, and the program."""
    start = time.perf_counter()
    compiled = lowered.compile()
    return time.perf_counter() - start, compiled


def compile_calls(functions: Mapping[str, Callable[..., Any]], *inputs: Any) -> tuple[dict[str, Any], dict[str, float]]:
    """Each function compiled for `inputs` and ready to be called with them, and the seconds that XLA took."""
    calls, seconds = {}, {}
    for name, function in functions.items():
        seconds[name], compiled = compile_seconds(jax.jit(function).lower(*inputs))
        calls[name] = partial(compiled, *inputs)
    return calls, seconds


def medians(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds a call, the functions taking turns so that noise of the machine falls on all alike."""
    for function in functions.values():
        jax.block_until_ready(function())
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}
