"""`memoroids export`: an agent as a folder that acts without this package, checked against the agent itself."""

import hashlib
import importlib.util
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from memoroids._version import __version__
from memoroids.deploy.jaxpr_to_onnx import named, to_onnx
from memoroids.deploy.onnx_graph import OPSET, stored
from memoroids.deploy.pure_step import ActingState, PureStep
from memoroids.runs.load import load_acting
from memoroids.runs.settings import TrainConfig
from memoroids.runs.trained_agent import TrainedAgent

if TYPE_CHECKING:
    from memoroids.deploy.loader import Agent

ABOUT, MODEL, STABLEHLO, INITIAL, README = (
    "agent.json",
    "agent.onnx",
    "agent.stablehlo",
    "initial_state.npz",
    "README.md",
)
SCHEMA = 1
PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-3
"""The largest difference of states and continuous actions, relative to the largest magnitude compared if above 1."""


class Exported(NamedTuple):
    """What was exported, and how it compared with the agent itself."""

    folder: Path
    difference: float
    """The largest difference of states and of continuous actions, relative where magnitudes are above 1."""
    steps: int
    """Steps that were compared."""
    size: int
    """Bytes of all files."""
    microseconds: dict[str, float]
    """The median time of a step: with onnxruntime, and of the agent itself, with JAX."""


def export(run_dir: Path, folder: Path, *, best: bool = False, episodes: int = 20) -> Exported:
    """Writes the greedy policy of a run to `folder`, a new directory, and compares it with the agent itself.

    `best`: the parameters of the run's best evaluation instead of the newest. `episodes`: episodes to compare, of drawn
    observations. Nothing is left behind if they disagree.

    Raises `ValueError` if the run cannot be read, if `folder` exists, if the packages of the extra `onnx` are missing,
    for a memory whose step has no counterpart in ONNX, and if the exported agent acts otherwise than the agent.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists: choose another --output")
    check_extra()
    from memoroids.deploy.loader import Agent  # needs the extra

    config, parts, params = load_acting(run_dir, best=best)
    pure = PureStep(parts, params)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write(partial, config, pure, best=best)
        difference, steps, microseconds = compare(Agent(partial), TrainedAgent(parts, params), pure, episodes)
        size = sum(path.stat().st_size for path in partial.iterdir())
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(folder, difference, steps, size, microseconds)


def check_extra() -> None:
    """Raises `ValueError` if the packages of the extra `onnx` are not installed."""
    if missing := [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]:
        raise ValueError(f"exporting needs {' and '.join(missing)}: pip install 'memoroids[onnx]'")


def write(folder: Path, config: TrainConfig, pure: PureStep, *, best: bool) -> None:
    """Writes the files of an exported agent to a folder that is there; `export` also compares it."""
    examples, reward = pure.examples(), np.zeros((), np.float32)
    needs_reward = pure.interface.previous_reward

    def step(state: Any, observation: Any, reward: Any = reward) -> Any:
        return pure(state, observation, reward)

    arguments: dict[str, Any] = {"state": pure.initial, "observation": examples}
    arguments |= {"reward": reward} if needs_reward else {}
    model, outputs = to_onnx(step, arguments, "memoroids")
    (folder / MODEL).write_bytes(model)
    (folder / STABLEHLO).write_bytes(_stablehlo(step, arguments))
    state = _flat_state(pure.initial)
    np.savez(folder / INITIAL, allow_pickle=False, **state)
    (folder / "agent.py").write_text(Path(__file__).with_name("loader.py").read_text())
    about = {
        "schema": SCHEMA,
        "version": __version__,
        "env": config.env.id,
        "memory": config.network.memory,
        "algorithm": config.algorithm,
        "parameters": "best" if best else "newest",
        "observation": [
            {
                "name": f"observation[{number}]",
                "path": list(part.path),
                "space": str(part.space),
                "shape": list(example.shape),
                "dtype": stored(example.dtype).name,
            }
            for number, (part, example) in enumerate(zip(pure.parts, examples, strict=True))
        ],
        "joined": {name: value for name, value in pure.interface.seen.items() if name != "observation"},
        "normalised": config.network.normalise,
        "needs_reward": needs_reward,
        "action": {
            "space": str(pure.interface.action_space),
            "discrete": not (pure.interface.action_space.shape or pure.continuous),
            "dtype": np.dtype(pure.interface.action_space.dtype).name,
        },
        "state": list(state),
        "outputs": outputs,
        "opset": OPSET,
        "files": {name: _digest(folder / name) for name in (MODEL, STABLEHLO, INITIAL)},
    }
    (folder / README).write_text(_readme(about))
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n")


def _stablehlo(step: Callable[..., Any], arguments: dict[str, Any]) -> bytes:
    """The step as a serialised `jax.export` program, whose state is a list of arrays, complex ones as they are."""
    leaves, structure = jax.tree.flatten(arguments["state"])
    rest = {name: value for name, value in arguments.items() if name != "state"}

    def flat(state: list[Any], *rest: Any) -> tuple[Any, list[Any]]:
        action, after = step(structure.unflatten(state), *rest)
        return action, jax.tree.leaves(after)

    return bytes(jax.export.export(jax.jit(flat), platforms=PLATFORMS)(leaves, *rest.values()).serialize())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _flat_state(state: Any) -> dict[str, np.ndarray]:
    """The leaves of a state by the names of the model's inputs, complex ones as two."""
    found: dict[str, np.ndarray] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        parts = named("state" + jax.tree_util.keystr(path), np.asarray(leaf))
        found |= {name: np.asarray(part, stored(part.dtype)) for name, part in parts.items()}
    return found


def compare(
    exported: "Agent", agent: TrainedAgent, pure: PureStep, episodes: int
) -> tuple[float, int, dict[str, float]]:
    """Plays episodes of drawn observations with both: the largest difference, the steps, and the times of a step.

    Raises `ValueError` for a difference beyond `TOLERANCE`, and for another action.
    """
    rng, space = np.random.default_rng(0), agent.observation_space
    space.seed(0)
    largest, steps = 0.0, 0
    spent: dict[str, list[float]] = {"onnxruntime": [], "jax": []}

    def timed(name: str, act: Callable[..., Any], *arguments: Any) -> Any:
        begun = time.perf_counter()
        action = act(*arguments)
        spent[name].append(time.perf_counter() - begun)
        return action

    for episode in range(episodes):
        exported.reset()
        agent.reset()
        reward = 0.0
        for step in range(int(rng.integers(1, 40))):
            observation = space.sample()
            got = timed("onnxruntime", exported.act, observation, reward)
            want = timed("jax", agent.act, observation, reward)
            where = f"step {step} of episode {episode}"
            if not pure.continuous and not np.array_equal(got, want):
                raise ValueError(f"the exported agent takes action {got} at {where}, but the agent takes {want}")
            state = _flat_state(ActingState(agent.memory(), agent.last_action(), np.int32(step + 1)))
            found = _difference([got, *exported.state.values()], [want, *state.values()])
            largest, steps = max(largest, found), steps + 1
            if not largest <= TOLERANCE:
                raise ValueError(f"the exported agent differs by {largest:.3g} from the agent at {where}")
            reward = float(rng.standard_normal())
    return largest, steps, {name: 1e6 * float(np.median(times)) for name, times in spent.items()}


def _difference(got: Any, want: Any) -> float:
    """The largest difference of arrays, relative to the largest magnitude of each if above 1; infinite for a NaN."""
    largest = 0.0
    for a, b in zip(got, want, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.size and not np.array_equal(a, b):
            scale = max(1.0, float(np.abs(b).max()))
            found = float(np.abs(a - b).max()) / scale
            largest = max(largest, found if found == found else np.inf)
    return largest


def _readme(about: dict[str, Any]) -> str:
    reward = ", reward" if about["needs_reward"] else ""
    return f"""# An agent for {about["env"]}

The greedy policy of an agent ({about["algorithm"]}, {about["memory"]}), trained with memoroids {about["version"]}.
To act with it, NumPy and onnxruntime are enough:

```python
from agent import Agent

agent = Agent()
agent.reset()                                # when an episode begins
action = agent.act(observation{reward})
```

Observations: {"; ".join(f"{part['path'] or 'the observation'}: {part['space']}" for part in about["observation"])}.
Actions: {about["action"]["space"]}.

- `agent.onnx`: (state, observation{reward}) → (action, state), ONNX operators {about["opset"]}, a complex state as two.
- `agent.stablehlo`: the same for `jax.export.deserialize`, on {", ".join(PLATFORMS)}; the state is a list of arrays.
- `initial_state.npz`: the state with which an episode begins.
- `agent.json`: names, shapes, types and digests.
- `agent.py`: the loader above.
"""
