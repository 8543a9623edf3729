"""Experiment trackers: TensorBoard, Weights & Biases and Trackio."""

import contextlib
import contextvars
import importlib
import json
import math
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from memoroids._util.files import atomic_write_text
from memoroids._util.messages import one_line
from memoroids.runs.metrics import ABSENT
from memoroids.runs.run_directory import TRACKED, is_seed_dir

PROJECT = "memoroids"

Row = Mapping[str, float]


class Tracker(Protocol):
    """Where rows of metrics are sent."""

    def log(self, values: Row, step: int) -> None:
        """Sends the values of one step."""

    def finish(self) -> None:
        """Sends what is still buffered and ends the tracking."""


class Trackers:
    """Sends each row of metrics once to each of the trackers that are asked for, also if the run is resumed.

    `wanted`: names of trackers, see `STARTS`. What each was sent, and the name and id by which it knows the run, are
    kept in trackers.json in the run directory. A tracker that fails later is given up with a line on standard error.

    Raises `ValueError` if the package of a tracker is not installed, or if a tracker cannot be started.
    """

    def __init__(self, run_dir: Path, config: dict[str, Any], wanted: Iterable[str]):
        self._path, self._sent = run_dir / TRACKED, _read(run_dir / TRACKED)
        # Nothing is written before all imports have succeeded: a run that cannot start must not create its directory.
        modules = {name: _extra(name) for name in wanted}
        self._open: dict[str, Tracker] = {}
        for name, module in modules.items():
            run_dir.mkdir(parents=True, exist_ok=True)
            new = {"name": _name(run_dir), "id": uuid.uuid4().hex[:8], "env_steps": -1}
            known = self._sent.setdefault(name, new)
            try:
                self._open[name] = STARTS[name](module, run_dir, config, known["name"], known["id"])
            except Exception as error:
                self.close()
                way_out = _WAYS_OUT.get(name, "train without it, or mend that")
                raise ValueError(f"--{name} could not start ({one_line(error)}): {way_out}") from error
        if modules:
            self._note()

    def write(self, row: Row) -> None:
        """Sends a row of metrics to those that were not sent it yet, without what the agent does not have.

        Its step is its number of environment steps.
        """
        step, values = int(row["env_steps"]), _present(row)
        for name in list(self._open):
            if step > self._sent[name]["env_steps"] and self._done(name, lambda tracker: tracker.log(values, step)):
                self._sent[name]["env_steps"] = step
                self._note()

    def close(self) -> None:
        """Sends what is still buffered and ends the tracking."""
        for name in list(self._open):
            self._done(name, lambda tracker: tracker.finish())
        self._open.clear()

    def _done(self, name: str, call: Callable[[Tracker], None]) -> bool:
        """Whether a tracker did what it was asked; one that did not is given up, since it must not end a run."""
        try:
            call(self._open[name])
        except Exception as error:
            del self._open[name]
            print(f"memoroids: --{name} failed and gets no more rows: {one_line(error)}", file=sys.stderr, flush=True)
            return False
        return True

    def _note(self) -> None:
        atomic_write_text(self._path, json.dumps(self._sent, indent=1) + "\n")


def _name(run_dir: Path) -> str:
    """The name of a run; that of one seed of several names the run as well."""
    named = run_dir.resolve()
    return f"{named.parent.name}-{named.name}" if is_seed_dir(named) else named.name


def _present(row: Row) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in ABSENT or not math.isnan(value)}


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """What trackers were sent so far; nothing if there is no such file, or none that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        found = json.loads(path.read_text())
        return {
            name: {"name": str(of["name"]), "id": str(of["id"]), "env_steps": int(of["env_steps"])}
            for name, of in found.items()
        }
    return {}


class _TensorBoard:
    def __init__(self, writer: Any):
        self._writer = writer

    def log(self, values: Row, step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # what counts as sent must not be lost with the process

    def finish(self) -> None:
        self._writer.close()


def _tensorboard(module: Any, run_dir: Path, config: dict[str, Any], name: str, id_: str) -> Tracker:
    return _TensorBoard(module.SummaryWriter(str(run_dir / "tensorboard")))


def _wandb(module: Any, run_dir: Path, config: dict[str, Any], name: str, id_: str) -> Tracker:
    # Several seeds that train together each have a run of their own at the same time.
    return module.init(
        project=PROJECT,
        name=name,
        id=id_,
        resume="allow",
        reinit="create_new",
        dir=str(run_dir),
        config=config,
    )


def _trackio(module: Any, run_dir: Path, config: dict[str, Any], name: str, id_: str) -> Tracker:
    def start() -> Tracker:
        return module.init(project=PROJECT, name=f"{name}-{id_}", resume="allow", config=config)

    # Otherwise it would end the run of another seed, which it remembers in a context variable.
    return contextvars.Context().run(start)


STARTS: dict[str, Callable[[Any, Path, dict[str, Any], str, str], Tracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}
"""The trackers, by the name of their setting and of their extra."""

_PACKAGES = {"tensorboard": "tensorboardX"}
_WAYS_OUT = {"wandb": "run `wandb login` first, or set WANDB_MODE=offline"}


def _extra(name: str) -> Any:
    try:
        return importlib.import_module(_PACKAGES.get(name, name))
    except ImportError as error:
        raise ValueError(f"--{name} needs the extra: pip install 'memoroids[{name}]'") from error
