"""The registry of memory models, over which tests, the command line and the documentation iterate."""

import inspect
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax

from memoroids._util.imports import import_named
from memoroids._util.messages import suggest
from memoroids.memory.delta_net import DeltaNet, GatedDeltaNet
from memoroids.memory.elman import Elman
from memoroids.memory.ffm import FFM
from memoroids.memory.frame_stack import FrameStack
from memoroids.memory.gla import GLA
from memoroids.memory.gru import GRU
from memoroids.memory.gtrxl import GTrXL
from memoroids.memory.hgrn import HGRN
from memoroids.memory.hgrn2 import HGRN2
from memoroids.memory.linear_transformer import LinearTransformer
from memoroids.memory.lmu import LMU
from memoroids.memory.lru import LRU
from memoroids.memory.lstm import LSTM
from memoroids.memory.mamba import Mamba
from memoroids.memory.mamba2 import Mamba2
from memoroids.memory.memoroid import Memory, Stack
from memoroids.memory.memory_traces import MemoryTraces
from memoroids.memory.minimal_rnn import MinGRU, MinLSTM
from memoroids.memory.mlp import MLP
from memoroids.memory.mlstm import MLSTM
from memoroids.memory.positional_mlp import PositionalMLP
from memoroids.memory.retnet import RetNet
from memoroids.memory.rot_rnn import RotRNN
from memoroids.memory.rwkv7 import RWKV7
from memoroids.memory.s4d import S4D
from memoroids.memory.s5 import S5
from memoroids.memory.shm import SHM
from memoroids.memory.slstm import SLSTM
from memoroids.memory.window_attention import WindowAttention


class Factory(Protocol):
    """A callable that builds a memory model."""

    def __call__(self, input_size: int, output_size: int, *, key: jax.Array) -> Memory:
        """A model whose parameters are drawn with `key`; further keyword arguments are the sizes of the model."""
        ...


# The default sizes of S5, LRU (two layers of 128 complex numbers), the Linear Transformer (16 × 16) and FFM (64 × 4)
# are those of Morad et al. 2024, Appendix H. Other models that are meant to be stacked have two layers too.
REGISTRY: dict[str, Factory] = {
    "lru": partial(Stack.of, LRU, layers=2),
    "s5": partial(Stack.of, S5, layers=2),
    "s4d": partial(Stack.of, S4D, layers=2),
    "ffm": FFM,
    "min_gru": partial(Stack.of, MinGRU, layers=2),
    "min_lstm": partial(Stack.of, MinLSTM, layers=2),
    "hgrn": HGRN,
    "mamba": partial(Stack.of, Mamba, layers=2),
    "rot_rnn": partial(Stack.of, RotRNN, layers=2),
    "shm": SHM,
    "memory_traces": MemoryTraces,
    "linear_transformer": LinearTransformer,
    "retnet": partial(Stack.of, RetNet, layers=2),
    "gla": partial(Stack.of, GLA, layers=2),
    "hgrn2": HGRN2,
    "mamba2": partial(Stack.of, Mamba2, layers=2),
    "mlstm": partial(Stack.of, MLSTM, layers=2),
    "delta_net": partial(Stack.of, DeltaNet, layers=2),
    "gated_delta_net": partial(Stack.of, GatedDeltaNet, layers=2),
    "rwkv7": partial(Stack.of, RWKV7, layers=2),
    "window_attention": partial(Stack.of, WindowAttention, layers=2),
    "gtrxl": partial(Stack.of, GTrXL, layers=1),
    "gru": GRU,
    "lstm": LSTM,
    "slstm": SLSTM,
    "lmu": LMU,
    "elman": Elman,
    "frame_stack": FrameStack,
    "positional_mlp": PositionalMLP,
    "mlp": MLP,
}
"""name → factory(input_size, output_size, *, key, **sizes)."""


class Cost(NamedTuple):
    """What a model costs as the length T of an episode grows, and who published it."""

    step: str
    """The time of a step."""
    sequence: str
    """The depth of a whole sequence, the time where there are processors enough; "no" if steps are not parallel."""
    source: str
    """Authors and year."""


_PARALLEL, _SEQUENTIAL = "O(log T) depth", "no: O(T) depth"
COSTS: dict[str, Cost] = {
    "lru": Cost("O(1)", _PARALLEL, "Orvieto et al. 2023"),
    "s5": Cost("O(1)", _PARALLEL, "Smith et al. 2023"),
    "s4d": Cost("O(1)", "in chunks of 256", "Gu et al. 2022"),
    "ffm": Cost("O(1)", _PARALLEL, "Morad et al. 2023"),
    "min_gru": Cost("O(1)", _PARALLEL, "Feng et al. 2024"),
    "min_lstm": Cost("O(1)", _PARALLEL, "Feng et al. 2024"),
    "hgrn": Cost("O(1)", _PARALLEL, "Qin et al. 2023"),
    "mamba": Cost("O(1)", "in chunks of 256", "Gu & Dao 2023"),
    "rot_rnn": Cost("O(1)", _PARALLEL, "Biegun et al. 2024"),
    "shm": Cost("O(1)", _PARALLEL, "Le et al. 2024"),
    "memory_traces": Cost("O(1)", _PARALLEL, "Eberhard et al. 2025"),
    "linear_transformer": Cost("O(1)", "in chunks of 64", "Katharopoulos et al. 2020"),
    "retnet": Cost("O(1)", "in chunks of 64", "Sun et al. 2023"),
    "gla": Cost("O(1)", "in chunks of 32", "Yang et al. 2024"),
    "hgrn2": Cost("O(1)", "in chunks of 32", "Qin et al. 2024"),
    "mamba2": Cost("O(1)", "in chunks of 64", "Dao & Gu 2024"),
    "mlstm": Cost("O(1)", "in chunks of 64", "Beck et al. 2024"),
    "delta_net": Cost("O(1)", "in chunks of 32", "Yang et al. 2024"),
    "gated_delta_net": Cost("O(1)", "in chunks of 32", "Yang et al. 2025"),
    "rwkv7": Cost("O(1)", "in chunks of 32", "Peng et al. 2025"),
    "window_attention": Cost("O(window)", "in blocks of 64", "Beltagy et al. 2020"),
    "gtrxl": Cost("O(window)", "in blocks of 64", "Parisotto et al. 2020"),
    "gru": Cost("O(1)", _SEQUENTIAL, "Cho et al. 2014"),
    "lstm": Cost("O(1)", _SEQUENTIAL, "Gers et al. 2000"),
    "slstm": Cost("O(1)", _SEQUENTIAL, "Beck et al. 2024"),
    "lmu": Cost("O(1)", _SEQUENTIAL, "Voelker et al. 2019"),
    "elman": Cost("O(1)", _SEQUENTIAL, "Elman 1990"),
    "frame_stack": Cost("O(frames)", "O(1) depth", "Mnih et al. 2015"),
    "positional_mlp": Cost("O(1)", _PARALLEL, "Morad et al. 2023"),
    "mlp": Cost("O(1)", "O(1) depth", "the baseline"),
}
"""name → what the model costs; the table of the README says the same."""


def model_of(factory: Factory) -> Any:
    """The model that `factory` makes, or makes layers of: a class, or the factory itself if it is a function."""
    if isinstance(factory, partial):
        return factory.args[0] if factory.args else factory.func
    return factory


def sizes_of(factory: Factory) -> dict[str, Any]:
    """The keyword arguments of `factory` that have defaults, by name; empty for what has no signature."""
    try:
        parameters = inspect.signature(model_of(factory)).parameters.values()
    except (TypeError, ValueError):
        return {}
    fixed = factory.keywords if isinstance(factory, partial) else {}
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    return fixed | defaults | fixed


def resolve_memory(name: str) -> Factory:
    """The memory factory registered as `name`, or imported from `name` = "package.module:factory".

    Raises `ValueError`, with a message of one line, if there is no such factory.
    """
    if ":" in name:
        return import_named(name, "memory", "callable", callable)
    if name in REGISTRY:
        return REGISTRY[name]
    raise ValueError(f"unknown memory {name!r}{suggest(name, REGISTRY)}")
