"""One layer of each memory that memax or memorax has too, timed in turns with theirs.

    python comparisons/memories/beside.py --json beside.json

Each row is a model and a package: the forward pass, and value and gradient of Σ s² in parameters and inputs, of one
sequence with an episode boundary every 50 steps. A package that is not installed is left out and named, as is a program
of either side that fails or would need more than 12 GB of temporary memory, which is never run.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from memoroids import memory as own
from memoroids.benchmarks import describe_machine
from memoroids.benchmarks.timing import compile_seconds, medians

Row = dict[str, Any]
LENGTH, WIDTH, RESET_EVERY = 8_192, 256, 50
LIMIT = 12 * 10**9
"""Bytes of temporary memory above which a program is not run."""
COLUMNS = (
    *("model", "package", "parameters", "state", "forward, ms", "ratio", "gradient, ms", "ratio"),
    *("forward, MiB", "gradient, MiB", "compiled, s", "reset holds"),
)
MODELS = {
    "lru": own.LRU,
    "s5": own.S5,
    "ffm": own.FFM,
    "min_gru": own.MinGRU,
    "mamba": own.Mamba,
    "shm": own.SHM,
    "linear_transformer": own.LinearTransformer,
    "mlstm": own.MLSTM,
    "delta_net": own.DeltaNet,
    "gated_delta_net": own.GatedDeltaNet,
    "gru": own.GRU,
    "lstm": own.LSTM,
    "slstm": own.SLSTM,
    "elman": own.Elman,
}


class Layer(NamedTuple):
    """A memory as a function of its parameters, inputs (T, width) and flags (T,), True where an episode begins."""

    apply: Callable[[Any, jax.Array, jax.Array], jax.Array]
    parameters: Any
    state: Any


def own_layer(name: str, width: int, key: jax.Array) -> Layer:
    """The layer of memoroids, at its default sizes."""
    model = MODELS[name](width, width, key=key)
    parameters, rest = eqx.partition(model, eqx.is_inexact_array)
    return Layer(lambda p, x, begin: eqx.combine(p, rest)(x, begin)[0], parameters, model.initial_state())


def memax_layers(width: int) -> dict[str, Callable[[jax.Array], Layer]]:
    """Those of memax, by name. S6 has a state as wide as its inputs, and the state of others is square."""
    import jaxtyping
    import memax.equinox.train_utils as memax

    # LRU declares outputs as wide as its state, which they are not, and fails the check of its own types.
    jaxtyping.config.update("jaxtyping_disable", True)

    def layer(make: Callable[..., Any], key: jax.Array) -> Layer:
        model = make(key=key)
        parameters, rest = eqx.partition(model, eqx.is_inexact_array)

        def apply(parameters: Any, x: jax.Array, begin: jax.Array) -> jax.Array:
            model = eqx.combine(parameters, rest)
            return model(model.initialize_carry(), (x, begin))[1]

        return Layer(apply, parameters, model.initialize_carry())

    models = {
        "lru": partial(memax.LRU, recurrent_size=128, hidden_size=width),
        "ffm": partial(memax.FFM, hidden_size=width, trace_size=64, context_size=4),
        "mamba": partial(memax.S6, recurrent_size=width, hidden_size=width),
        "linear_transformer": partial(memax.FART, hidden_size=width, recurrent_size=16),
        "delta_net": partial(memax.DeltaNet, hidden_size=width, recurrent_size=32),
        "gated_delta_net": partial(memax.GDN, hidden_size=width, recurrent_size=45),
        "gru": partial(memax.GRU, recurrent_size=width),
        "lstm": partial(memax.LSTM, recurrent_size=width),
        "elman": partial(memax.Elman, recurrent_size=width, hidden_size=width),
    }
    return {name: partial(layer, make) for name, make in models.items()}


def memorax_layers(width: int) -> dict[str, Callable[[jax.Array], Layer]]:
    """Those of memorax, by name; its RNN runs the cells of flax that the package has none of its own for."""
    import flax.linen as nn
    import memorax.networks.sequence_models as memorax

    def layer(model: Any, key: jax.Array) -> Layer:
        parameters = model.init(key, jnp.zeros((1, 2, width)), jnp.zeros((1, 2), bool))
        state = model.initialize_carry(key, (1, width))
        return Layer(lambda p, x, begin: model.apply(p, x[None], begin[None])[1][0], parameters, state)

    weights, biases = nn.initializers.lecun_normal(), nn.initializers.zeros_init()
    scanned = {
        "lru": memorax.LRUCell(width, hidden_dim=128),
        "s5": memorax.S5Cell(width, state_size=128),
        "ffm": memorax.FFMCell(width, memory_size=64, context_size=4),
        "min_gru": memorax.MinGRUCell(width),
        "mamba": memorax.MambaCell(width, num_heads=2 * width // 16, head_dim=16, hidden_dim=16),
        "linear_transformer": memorax.LinearAttentionCell(16, 1, weights, biases, jnp.float32),
        "mlstm": memorax.mLSTMCell(width, hidden_dim=64, num_heads=2),
    }
    stepped = {
        "shm": memorax.SHMCell(32, width),
        "gru": nn.GRUCell(width),
        "lstm": nn.OptimizedLSTMCell(width),
        "slstm": memorax.sLSTMCell(width, width, num_heads=1, use_causal_conv=False),
        "elman": nn.SimpleCell(width),
    }
    models = {name: memorax.Memoroid(cell) for name, cell in scanned.items()}
    models |= {name: memorax.RNN(cell) for name, cell in stepped.items()}
    return {name: partial(layer, model) for name, model in models.items()}


PACKAGES = {"memax": memax_layers, "memorax": memorax_layers}


def reason(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


class Side:
    """A layer with its compiled programs and what is known of them; what fails is a note instead."""

    def __init__(self, make: Callable[[], Layer], x: jax.Array, begin: jax.Array):
        self.facts: Row = {"notes": []}
        self.calls: dict[str, Callable[[], Any]] = {}
        try:
            layer = make()
            self.facts |= {"parameters": count(layer.parameters), "state": count(layer.state)}
        except Exception as error:
            self.facts["notes"].append(f"cannot be built: {reason(error)}")
            return

        def loss(both: tuple[Any, jax.Array], begin: jax.Array) -> jax.Array:
            return jnp.sum(jnp.square(layer.apply(*both, begin)))

        self._prepare("forward", lambda both, begin: layer.apply(*both, begin), (layer.parameters, x), begin)
        self._prepare("gradient", jax.value_and_grad(loss), (layer.parameters, x), begin)

    def _prepare(self, what: str, function: Callable[..., Any], both: tuple[Any, jax.Array], begin: jax.Array) -> None:
        """Compiles, runs once, and keeps the call, unless one of these fails or the program takes too much memory."""
        notes = self.facts["notes"]
        try:
            self.facts[f"{what}_compile_s"], compiled = compile_seconds(jax.jit(function).lower(both, begin))
            taken = compiled.memory_analysis().temp_size_in_bytes
            self.facts[f"{what}_bytes"] = taken
            if taken > LIMIT:
                notes.append(f"{what} not run: {taken / 1e9:.1f} GB of temporary memory")
                return
            found = jax.block_until_ready(compiled(both, begin))
            if what == "forward":
                self.facts["reset_holds"] = reset_holds(lambda x, begin: compiled((both[0], x), begin), both[1], begin)
        except Exception as error:
            notes.append(f"{what} fails: {reason(error)}")
            return
        if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(found)):
            notes.append(f"{what} is not finite")
        self.calls[what] = partial(compiled, both, begin)


def reset_holds(run: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, begin: jax.Array) -> str:
    """Whether inputs before a boundary in the middle leave the outputs after it as they are: "yes" or "no".

    "no memory": the next output stays the same without flags too, so that nothing can be told.
    """
    boundary = RESET_EVERY * max(1, x.shape[0] // RESET_EVERY // 2)
    other = x.at[:boundary].set(jax.random.normal(jax.random.key(2), (boundary, x.shape[1])))
    flags = begin.at[1:].set(False)
    if np.array_equal(run(x, flags)[boundary], run(other, flags)[boundary]):
        return "no memory"
    after, changed = (np.asarray(run(inputs, begin)[boundary:]) for inputs in (x, other))
    return "yes" if np.allclose(after, changed, rtol=0, atol=1e-6 * np.abs(after).max()) else "no"


def count(tree: Any) -> int:
    """Numbers in the arrays of a tree; complex ones count twice."""
    return sum(leaf.size * (2 if jnp.iscomplexobj(leaf) else 1) for leaf in jax.tree.leaves(tree))


def beside(
    name: str, makes: Mapping[str, Callable[[jax.Array], Layer]], repeats: int, length: int, width: int
) -> list[Row]:
    """A row for each package in `makes`, all of whose layers are timed in turns with ours."""
    key, x = jax.random.key(0), jax.random.normal(jax.random.key(1), (length, width))
    begin = jnp.arange(length) % RESET_EVERY == 0
    sides = {"ours": Side(lambda: own_layer(name, width, key), x, begin)}
    sides |= {package: Side(lambda make=make: make(key), x, begin) for package, make in makes.items()}
    for what in ("forward", "gradient"):
        calls = {package: side.calls[what] for package, side in sides.items() if what in side.calls}
        for package, seconds in medians(calls, repeats).items():
            sides[package].facts[f"{what}_ms"] = 1e3 * seconds
    return [
        {"model": name, "package": package, "ours": sides["ours"].facts, "theirs": sides[package].facts}
        for package in makes
    ]


def cells(row: Row) -> list[str]:
    """A row as text: ours / theirs, and the ratio of theirs to ours."""

    def pair(name: str, form: Callable[[Any], str]) -> str:
        return " / ".join(form(row[side][name]) if name in row[side] else "—" for side in ("ours", "theirs"))

    def times(what: str) -> list[str]:
        ours, theirs = (row[side].get(f"{what}_ms") for side in ("ours", "theirs"))
        return [pair(f"{what}_ms", "{:,.1f}".format), f"{theirs / ours:.2f}" if ours and theirs else "—"]

    return [
        *(row["model"], row["package"], pair("parameters", "{:,}".format), pair("state", "{:,}".format)),
        *times("forward"),
        *times("gradient"),
        *(pair(f"{what}_bytes", lambda taken: f"{taken / 2**20:,.0f}") for what in ("forward", "gradient")),
        pair("gradient_compile_s", "{:.1f}".format),
        pair("reset_holds", str),
    ]


def notes(rows: Sequence[Row]) -> list[str]:
    """What did not run or is not finite, a line for each."""
    found: dict[str, None] = {}
    for row in rows:
        for side, package in (("ours", "memoroids"), ("theirs", row["package"])):
            found |= {f"{row['model']} ({package}): {note}": None for note in row[side]["notes"]}
    return list(found)


def installed(width: int) -> tuple[dict[str, dict[str, Callable[[jax.Array], Layer]]], dict[str, str]]:
    """The layers of each package that can be imported, and why the others cannot."""
    layers, missing = {}, {}
    for package, layers_of in PACKAGES.items():
        try:
            layers[package] = layers_of(width)
        except Exception as error:
            missing[package] = reason(error)
    return layers, missing


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="calls of each program, of which the median is taken")
    parser.add_argument("--length", type=int, default=LENGTH, help="steps of the sequence")
    parser.add_argument("--width", type=int, default=WIDTH, help="size of inputs and outputs, a multiple of 8")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME", help="these models")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the rows")
    asked = parser.parse_args(arguments)
    if asked.length <= RESET_EVERY:
        parser.error(f"--length must be above {RESET_EVERY}, where the first boundary is")
    machine = describe_machine()
    layers, missing = installed(asked.width)
    machine |= {package: version(package) for package in layers}
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    for package, why in missing.items():
        print(f"{package} is missing: {why}")
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    rows: list[Row] = []
    for name in asked.only:
        makes = {package: models[name] for package, models in layers.items() if name in models}
        for row in beside(name, makes, asked.repeats, asked.length, asked.width) if makes else []:
            print(f"| {' | '.join(cells(row))} |", flush=True)
            rows.append(row)
    print("\n".join(["", *notes(rows)]))
    if asked.json:
        written = {"machine": machine, "missing": missing, "length": asked.length, "width": asked.width, "rows": rows}
        asked.json.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
