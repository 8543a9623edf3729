"""What do returns and advantages of ragged episodes cost? Memoroids on one tape against padding and loops."""

import csv
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from memoroids.algebra.recurrence_backends import available_backends, default_backend
from memoroids.benchmarks.timing import compile_seconds, medians
from memoroids.returns import discounted_return, gae

LENGTHS, EPISODES = (10, 100, 1_000), (10, 100, 1_000, 10_000)
DISCOUNT, LAMBDA = 0.99, 0.95
BACKENDS = available_backends()
METHODS = (*BACKENDS, "flat loop", "padded loop", "padding", "python loop", "copy")
FIELDS: tuple[str, ...] = (
    "quantity",
    "max_length",
    "episodes",
    "transitions",
    "method",
    "ms",  # median
    "ratio",  # to ours with the platform's default backend
    "compile_s",
    "difference",  # greatest absolute difference to ours
)
"""The columns of returns.csv."""

# Above these numbers of transitions a loop would dominate the time of the whole benchmark.
PYTHON_BUDGET, ACCELERATOR_BUDGET = 100_000, 20_000

Inputs = tuple[Any, ...]


class Quantity(NamedTuple):
    """A quantity: names of its inputs, our function, one step of `lax.scan`, and a NumPy loop over one episode."""

    name: str
    inputs: tuple[str, ...]
    ours: Callable[..., jax.Array]
    step: Callable[[jax.Array, Inputs], tuple[jax.Array, jax.Array]]
    python: Callable[..., np.ndarray]


def _return_step(following: jax.Array, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
    reward, terminated, truncated, bootstrap = inputs
    ahead = jnp.where(terminated, 0.0, jnp.where(truncated, bootstrap, following))
    following = reward + DISCOUNT * ahead
    return following, following


def _gae_step(following: jax.Array, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
    reward, value, value_tp1, terminated, truncated = inputs
    delta = reward + DISCOUNT * jnp.where(terminated, 0.0, value_tp1) - value
    following = delta + DISCOUNT * LAMBDA * jnp.where(terminated | truncated, 0.0, following)
    return following, following


def _return_python(
    reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, bootstrap: np.ndarray
) -> np.ndarray:
    out = np.empty_like(reward)
    following = bootstrap[-1] if truncated[-1] else 0.0
    for t in reversed(range(len(reward))):
        following = out[t] = reward[t] + DISCOUNT * following
    return out


def _gae_python(
    reward: np.ndarray, value: np.ndarray, value_tp1: np.ndarray, terminated: np.ndarray, truncated: np.ndarray
) -> np.ndarray:
    out = np.empty_like(reward)
    following = 0.0
    for t in reversed(range(len(reward))):
        delta = reward[t] + DISCOUNT * (0.0 if terminated[t] else value_tp1[t]) - value[t]
        following = out[t] = delta + DISCOUNT * LAMBDA * following
    return out


def _ours_return(reward: Any, terminated: Any, truncated: Any, bootstrap: Any, backend: str) -> jax.Array:
    return discounted_return(reward, terminated, truncated, DISCOUNT, bootstrap, backend=backend)


def _ours_gae(reward: Any, value: Any, value_tp1: Any, terminated: Any, truncated: Any, backend: str) -> jax.Array:
    return gae(reward, value, value_tp1, terminated, truncated, DISCOUNT, LAMBDA, backend=backend)


QUANTITIES = (
    Quantity(
        "discounted return",
        ("reward", "terminated", "truncated", "value_tp1"),
        _ours_return,
        _return_step,
        _return_python,
    ),
    Quantity(
        "gae",
        ("reward", "value", "value_tp1", "terminated", "truncated"),
        _ours_gae,
        _gae_step,
        _gae_python,
    ),
)


def _batch(max_length: int, episodes: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Lengths (episodes,), uniform in 1 … max_length, and the transitions of all episodes end to end, (T,) each."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, max_length + 1, size=episodes)
    last = np.zeros(lengths.sum(), bool)
    last[np.cumsum(lengths) - 1] = True
    terminated = last & (rng.random(len(last)) < 0.5)
    reward, value, value_tp1 = rng.standard_normal((3, len(last)), np.float32)
    flags = {"terminated": terminated, "truncated": last & ~terminated}
    return lengths, {"reward": reward, "value": value, "value_tp1": value_tp1} | flags


def _padded(inputs: Inputs, real: np.ndarray) -> list[np.ndarray]:
    """Arrays (T,) as (max_length, episodes): time first, as the loop over time reads them; zeros after each episode."""
    out = []
    for values in inputs:
        padded = np.zeros(real.shape[::-1], values.dtype)
        padded.T[real] = values
        out.append(padded)
    return out


def _loop(step: Any, *inputs: Any) -> jax.Array:
    return lax.scan(step, jnp.zeros((), jnp.float32), inputs, reverse=True)[1]


def _by_episode(python: Callable[..., np.ndarray], split: list[Inputs]) -> np.ndarray:
    return np.concatenate([python(*inputs) for inputs in split])


def _sensible(method: str, transitions: int, largest: bool) -> bool:
    """Whether a method is fast enough to be measured on this platform."""
    if method == "python loop":
        return transitions <= PYTHON_BUDGET
    if jax.default_backend() == "cpu":
        # `associative` takes seconds to compile for every shape.
        return method != "associative" or largest
    # These launch a kernel for each step.
    return method not in ("sequential", "flat loop") or transitions <= ACCELERATOR_BUDGET


def _case(quantity: Quantity, max_length: int, episodes: int, repeats: int, largest: bool) -> list[dict[str, Any]]:
    lengths, arrays = _batch(max_length, episodes)
    inputs = tuple(arrays[name] for name in quantity.inputs)
    flat = tuple(map(jnp.asarray, inputs))
    real = np.arange(max_length) < lengths[:, None]
    padded = tuple(map(jnp.asarray, _padded(inputs, real)))
    # Each input is read once, the result written once; a copy of n bytes reads n and writes n.
    moved = sum(x.nbytes for x in inputs) + 4 * len(inputs[0])
    half = (jnp.zeros(moved // 8, jnp.float32),)

    programs: dict[str, tuple[Any, Inputs]] = {b: (partial(quantity.ours, backend=b), flat) for b in BACKENDS}
    loop = partial(_loop, quantity.step)
    programs |= {"flat loop": (loop, flat), "padded loop": (jax.vmap(loop, in_axes=1, out_axes=1), padded)}
    programs["copy"] = jnp.copy, half
    calls: dict[str, Callable[[], Any]] = {}
    compiling: dict[str, float] = {}
    for method, (function, arguments) in programs.items():
        if _sensible(method, len(inputs[0]), largest):
            lowered = jax.jit(function).lower(*arguments)
            compiling[method], compiled = compile_seconds(lowered)
            calls[method] = partial(compiled, *arguments)
    if _sensible("python loop", len(inputs[0]), largest):
        split = zip(*(np.split(x, np.cumsum(lengths)[:-1]) for x in inputs), strict=True)
        calls["python loop"] = partial(_by_episode, quantity.python, list(split))

    ours = default_backend()
    expected = np.asarray(calls[ours]())
    differences = {}
    for method in calls.keys() - {"copy"}:
        got = np.asarray(calls[method]())
        got = got.T[real] if method == "padded loop" else got
        differences[method] = float(np.abs(got - expected).max())
        # Results are of order ten and sums of up to a thousand rounded terms.
        if not differences[method] <= 1e-3:
            raise RuntimeError(f"{quantity.name}: {method} and {ours} differ by {differences[method]:.2g}")

    times = medians(calls | {"padding": partial(_padded, inputs, real)}, repeats)
    nan = float("nan")
    return [
        {
            "quantity": quantity.name,
            "max_length": max_length,
            "episodes": episodes,
            "transitions": len(inputs[0]),
            "method": method,
            "ms": 1e3 * times.get(method, nan),
            "ratio": times.get(method, nan) / times[ours],
            "compile_s": compiling.get(method, nan),
            "difference": differences.get(method, nan),
        }
        for method in METHODS
    ]


def _cases(repeats: int, lengths: Sequence[int], episodes: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
    for quantity in QUANTITIES:
        for max_length in lengths:
            for count in episodes:
                yield _case(quantity, max_length, count, repeats, largest=count == max(episodes))


def measure(repeats: int, lengths: Sequence[int] = LENGTHS, episodes: Sequence[int] = EPISODES) -> list[dict[str, Any]]:
    """A row of `FIELDS` for each quantity, maximum length, number of episodes and method of `METHODS`.

    **Arguments:** `repeats`, timed repetitions, of which the median is reported; `lengths`, maximum episode lengths L
    (lengths are uniform in 1 … L); `episodes`, numbers of episodes.

    **Returns:** rows with `ms`, milliseconds; `ratio`, to ours with the platform's default backend; `compile_s`,
    seconds of compilation; `difference`, the greatest absolute difference to ours; NaN if a method was left out as too
    slow or a column does not apply. All methods get the same arrays, end to end or padded.

    Raises `RuntimeError` if results disagree.
    """
    return [row for rows in _cases(repeats, lengths, episodes) for row in rows]


def run(repeats: int, output: Path | None = None) -> list[dict[str, Any]]:
    """Prints milliseconds and ratios to ours; writes returns.csv, .png and .pdf to the directory `output`, if given.

    Raises `RuntimeError` like `measure`.
    """
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    print(f"returns and advantages of ragged episodes, on {jax.devices()[0]}; ms, and ratio to {default_backend()}")
    print(f"{', '.join(BACKENDS)}: ours, on one tape. flat loop: lax.scan over the tape. padded loop: lax.scan over")
    print("time, vectorised over padded episodes; padding: the padding itself, in NumPy. python loop: NumPy, episode")
    print("by episode. copy: of the same number of bytes as the tape's inputs and results. -: too slow, left out.")
    rows: list[dict[str, Any]] = []
    for case in _cases(repeats, LENGTHS, EPISODES):
        first = case[0]
        if not rows or rows[-1]["quantity"] != first["quantity"]:
            print(f"\n{first['quantity']}\n{'length':>7}{'episodes':>9}" + "".join(f"{m:>15}" for m in METHODS))
        print(f"{first['max_length']:7,}{first['episodes']:9,}" + "".join(map(_figure, case)), flush=True)
        rows += case
    print(f"\ngreatest difference between methods: {np.nanmax([row['difference'] for row in rows]):.1e}")
    if output is not None:
        write_csv(rows, output / "returns.csv")
        for kind in ("png", "pdf"):
            draw(rows, output / f"returns.{kind}")
    return rows


def _figure(row: dict[str, Any]) -> str:
    if np.isnan(row["ms"]):
        return f"{'-':>15}"
    return f"{row['ms']:8.{3 if row['ms'] < 10 else 1}f}{row['ratio']:6.{2 if row['ratio'] < 100 else 0}f}×"


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes the rows of `measure` as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws the rows of `measure`, time against number of episodes, in a panel per quantity and maximum length."""
    from matplotlib.figure import Figure  # slow to import

    quantities = list(dict.fromkeys(row["quantity"] for row in rows))
    lengths = list(dict.fromkeys(row["max_length"] for row in rows))
    size = (3.2 * len(lengths) + 2, 2.8 * len(quantities) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(quantities), len(lengths), sharex=True, sharey="row", squeeze=False)
    for i, quantity in enumerate(quantities):
        for j, length in enumerate(lengths):
            axes = panels[i, j]
            here = [row for row in rows if (row["quantity"], row["max_length"]) == (quantity, length)]
            for k, method in enumerate(METHODS):
                of = [row for row in here if row["method"] == method]
                # The lower bound is drawn in grey, as context.
                color, line = ("0.5", ".:") if method == "copy" else (f"C{k}", ".-")
                label, width = (f"memoroid, {method}", 2.2) if method in BACKENDS else (method, 1.2)
                x, y = [row["episodes"] for row in of], [row["ms"] for row in of]
                axes.loglog(x, y, line, label=label, color=color, linewidth=width)
            axes.grid(alpha=0.3)
            axes.set_title(f"{quantity}, at most {length:,} steps", fontsize=10)
            if i == len(quantities) - 1:
                axes.set_xlabel("episodes")
        panels[i, 0].set_ylabel("milliseconds")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside right upper")
    figure.savefig(path, dpi=120)
