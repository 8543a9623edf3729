"""Shared by all tests: strict dtypes in JAX, deterministic Hypothesis, fast compilation, and the seed."""

import contextlib
import functools
import os
import resource
import zlib
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import settings
from jax._src import compiler

from finished_runs import Finished, trained_once

# Commands are run inside the suite, which is to stay small.
os.environ["MEMOROIDS_KEEP_MEMORY"] = "0"
os.environ["MEMOROIDS_COMPILE_CACHE"] = "0"

SEED = int(os.environ.get("MEMOROIDS_TEST_SEED", "0"))

# Silent broadcasting over a missing axis could copy the state of one episode into all others.
jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("deterministic", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("deterministic")

# Optax promotes dtypes itself, so strictness holds only where no optimiser runs.
ROOMS = "monoid resettable scan linear_recurrence linear_attention memoroid models chunks testing returns tape rings"
STRICT_MODULES = {f"test_{room}" for room in ROOMS.split()}
# Nearly all the time of the suite is compilation, so most of it is done without XLA's optimisations, and all but
# `AS_USERS` with the older code generator. Contracts of single numbers are held against optimised programs;
# convolutions are too slow without optimisations.
AS_USERS = "test_scan"
OPTIMISED_MODULES = {f"test_{room}" for room in ("linear_recurrence", "linear_attention", "returns", "pixels")}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]):
    """Marks the cases that `one_in` leaves out as slow, before pytest deselects those.

    Those that stay are drawn by a hash of their names: every n-th in order would miss whole values of a parameter.
    """
    cases: dict[tuple[str, int], list[pytest.Function]] = {}
    for item in items:
        if (marker := item.get_closest_marker("one_in")) is not None:
            cases.setdefault((item.nodeid.partition("[")[0], marker.args[0]), []).append(item)
    for (_, n), found in cases.items():
        found.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))
        for number, item in enumerate(found):
            if number % n:
                item.add_marker(pytest.mark.slow)


def pytest_report_header() -> str:
    return f"memoroids: seed {SEED} (MEMOROIDS_TEST_SEED), jax {jax.__version__}, numpy {np.__version__}"


@pytest.fixture(autouse=True)
def strict_dtypes(request: pytest.FixtureRequest):
    if request.module.__name__.rpartition(".")[2] in STRICT_MODULES:
        with jax.numpy_dtype_promotion("strict"):
            yield
    else:
        yield


# The older code generator for the CPU, all of a program at once: half the time of the newer one.
WISHED = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}


@functools.cache
def quick_options() -> dict[str, bool | int]:
    """The options that this XLA knows: newer versions lack the generator and abort on unknown names."""
    known = {}
    for name, value in WISHED.items():
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            jax.jit(lambda: 0).lower().compile(compiler_options={name: value})
            known[name] = value
    return known


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(request: pytest.FixtureRequest):
    name = request.module.__name__.rpartition(".")[2]
    if name == AS_USERS:
        yield
        return
    options, chosen = compiler.get_compile_options, quick_options()

    def quick(*arguments: Any, **keywords: Any) -> Any:
        found = options(*arguments, **keywords)
        found.env_option_overrides = [*found.env_option_overrides, *chosen.items()]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", quick)
        jax.config.update("jax_disable_most_optimizations", name not in OPTIMISED_MODULES)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    """Clears JAX's caches between modules, which would grow to 5 GB and are of little use to later modules."""
    yield
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 2_500_000:  # KiB; bytes on macOS, where it is always so
        jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory):
    """Lets each test process compile equal programs once, since compilation takes most of the time of a small test."""
    compiled = str(tmp_path_factory.mktemp("compiled"))
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    with pytest.MonkeyPatch.context() as patch:
        # Asking starts JAX, which reads the flags of this process: what follows is for those that it starts.
        flags = [f"--{name}={str(value).lower()}" for name, value in quick_options().items()]
        patch.setenv("XLA_FLAGS", " ".join((os.environ.get("XLA_FLAGS", ""), *flags)).strip())
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", compiled)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return trained_once(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)
