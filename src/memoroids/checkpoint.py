"""Checkpoints of a run: arrays by Orbax, counters and digests beside them. Nothing loaded is ever executed."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import jax

from memoroids.wording import one_line


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written; the message names the path and what is wrong."""


_MANIFEST = "manifest.json"


def save(root: Path, step: int, parts: dict[str, Any], counters: dict[str, Any], *, keep: int = 2) -> Path:
    """Writes `root`/STEP with one Orbax tree for each of `parts`, then drops all but the newest `keep`.

    The directory takes its name only when everything in it is written, so a broken write leaves the older ones as they
    were. `counters` is plain JSON. Raises `CheckpointError`.
    """
    import orbax.checkpoint as ocp  # slow to import, and only needed here

    final = root / f"{step:09d}"
    partial = root / f"{final.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with _checkpointer(ocp) as checkpointer:
            for name, tree in parts.items():
                leaves = _leaves(tree)
                # Of several processes Orbax takes only what all have, or what is no device's.
                leaves = jax.device_get(leaves) if jax.process_count() > 1 else leaves
                checkpointer.save((partial / name).absolute(), leaves)
                checkpointer.wait_until_finished()
        body = {"counters": counters, "files": _digests(partial)}
        (partial / _MANIFEST).write_text(json.dumps({**body, "digest": _digest(body)}, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except Exception as error:
        raise CheckpointError(f"cannot write checkpoint {final}: {_said(error)}") from error
    for old in _steps(root)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest(root: Path) -> Path:
    """The newest checkpoint under `root`. Raises `CheckpointError` where there is none."""
    steps = _steps(root)
    if not steps:
        raise CheckpointError(f"no checkpoint in {root}")
    return steps[-1]


def counters(path: Path) -> dict[str, Any]:
    """The counters of one checkpoint, after every file was held against its digest. Raises `CheckpointError`."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        values, files = manifest["counters"], dict(manifest["files"])
        if manifest["digest"] != _digest({"counters": values, "files": manifest["files"]}):
            raise ValueError("it is not what was written")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"unreadable checkpoint {path}: {_MANIFEST}: {_said(error)}") from error
    try:
        found = _digests(path)
    except OSError as error:
        raise CheckpointError(f"unreadable checkpoint {path}: {_said(error)}") from error
    if found != files:
        wrong = sorted(name for name in {*files, *found} if files.get(name) != found.get(name))
        raise CheckpointError(f"damaged checkpoint {path}: {wrong[0]} is not what was written")
    return values


def restore(path: Path, part: str, like: Any) -> Any:
    """One part of a checkpoint, with the structure, shapes and dtypes of `like`. Raises `CheckpointError`."""
    import orbax.checkpoint as ocp

    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), _leaves(like))
    try:
        with _checkpointer(ocp) as checkpointer:
            leaves = checkpointer.restore((path / part).absolute(), abstract)
    except Exception as error:
        raise CheckpointError(f"unreadable checkpoint {path}: {part}: {_said(error)}") from error
    restored = [leaves.get(_name(i), leaf) for i, leaf in enumerate(jax.tree.leaves(like))]
    return jax.tree.unflatten(jax.tree.structure(like), restored)


def _checkpointer(ocp: Any) -> Any:
    """One that waits for no other process: of several, the first writes alone, and each reads by itself."""
    if jax.process_count() == 1:
        return ocp.StandardCheckpointer()
    me = jax.process_index()
    alone = {"primary_host": me, "active_processes": {me}, "barrier_sync_key_prefix": f"process{me}"}
    return ocp.StandardCheckpointer(multiprocessing_options=ocp.options.MultiprocessingOptions(**alone))


def _name(number: int) -> str:
    return f"{number:05d}"


def _leaves(tree: Any) -> dict[str, Any]:
    """Array leaves by number, so that Orbax needs to know none of our types; it refuses those without elements."""
    return {_name(i): leaf for i, leaf in enumerate(jax.tree.leaves(tree)) if leaf.size}


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _steps(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("[0-9]" * 9) if path.is_dir())


def _digests(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != _MANIFEST
    }


def _said(error: BaseException) -> str:
    """Orbax says much: its first 300 characters name what is wrong."""
    kind, _, said = one_line(error).partition(": ")
    return f"{kind}: {said[:300]}"
