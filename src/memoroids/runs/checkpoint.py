"""Checkpoints of a run: arrays by Orbax, counters and digests beside them. Nothing loaded is ever executed."""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from memoroids._util.messages import one_line


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written; the message names the path and what is wrong."""


_MANIFEST = "manifest.json"

SCHEMA = 2
"""Version of what a checkpoint holds and how; one of another version is refused."""

_PARTIAL, _GONE = ".partial", ".gone"


def save(
    root: Path,
    step: int,
    parts: dict[str, Any],
    counters: dict[str, Any],
    *,
    config: dict[str, Any] | None = None,
    machine: dict[str, str] | None = None,
    keep: int = 2,
) -> Path:
    """Writes `root`/STEP with one Orbax tree for each of `parts`, then drops all older ones but the newest `keep` - 1.

    The directory takes its name only when everything in it is on disk, so a broken write leaves the older ones as they
    were. Another of the same step makes this one `root`/STEP.0001 and so on, and is dropped only then. Newer ones, that
    a run has passed over, stay. `counters`, the settings `config` and what the `machine` is are plain JSON. Raises
    `CheckpointError`.
    """
    import orbax.checkpoint as ocp  # slow to import, and only needed here

    same = [path for path in _steps(root) if path.name.startswith(f"{step:09d}")]
    number = int(same[-1].name[10:] or 0) + 1 if same else 0
    final = root / (f"{step:09d}.{number:04d}" if number else f"{step:09d}")
    partial = root / f"{final.name}{_PARTIAL}"
    try:
        for left in (*root.glob(f"*{_PARTIAL}"), *root.glob(f"*{_GONE}")):  # by a run that was killed
            shutil.rmtree(left)
        partial.mkdir(parents=True)
        with _checkpointer(ocp) as checkpointer:
            for name, tree in parts.items():
                leaves = _leaves(tree)
                # Of several processes Orbax takes only what all have, or what is no device's.
                leaves = jax.device_get(leaves) if jax.process_count() > 1 else leaves
                checkpointer.save((partial / name).absolute(), leaves)
                checkpointer.wait_until_finished()
        body = {"schema": SCHEMA, "config": _plain(config), "machine": machine, "counters": counters}
        body["files"] = _digests(partial)
        (partial / _MANIFEST).write_text(json.dumps({**body, "digest": _digest(body)}, indent=1))
        _sync(partial)
        partial.rename(final)
        _sync_one(root)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk is no place for half of one
        raise CheckpointError(f"cannot write checkpoint {final}: {_said(error)}") from error
    older = [path for path in _steps(root) if path.name < final.name and path not in same]
    for old in (*same, *older[: max(len(older) - keep + 1, 0)]):
        with contextlib.suppress(OSError):
            _drop(old)
    return final


def _sync(directory: Path) -> None:
    """Puts everything under `directory` on disk, so that a machine that stops leaves it whole as well."""
    for path in (directory, *directory.rglob("*")):
        _sync_one(path)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _drop(path: Path) -> None:
    """Removes a checkpoint, which is no checkpoint any more before its first file goes."""
    shutil.rmtree(path.rename(path.with_name(path.name + _GONE)))


def latest(root: Path) -> Path:
    """The newest checkpoint under `root`. Raises `CheckpointError` where there is none."""
    steps = _steps(root)
    if not steps:
        raise CheckpointError(f"no checkpoint in {root}")
    return steps[-1]


def newest_good(
    root: Path, refused: Callable[[CheckpointError], None], config: dict[str, Any] | None = None
) -> Path | None:
    """The newest checkpoint under `root` whose files are what was written; None where there never was one.

    With `config`, one that was written with the same settings. Each newer one that is not is handed to `refused`.
    Raises `CheckpointError`, the newest one's, where none is good.
    """
    errors = []
    for path in reversed(_steps(root)):
        try:
            before = manifest(path)["config"]
            if config is not None and (field := _differing(config, before or {})):
                raise CheckpointError(
                    f"foreign checkpoint {path}: its run has {field} {(before or {}).get(field)!r}, "
                    f"the settings here say {config.get(field)!r}"
                )
        except CheckpointError as error:
            errors.append(error)
        else:
            for error in errors:
                refused(error)
            return path
    if errors:
        raise errors[0]
    return None


def _differing(config: dict[str, Any], before: dict[str, Any]) -> str | None:
    """The first setting that is not as before, wherever the run lies and whichever version wrote it."""
    config = _plain(config)
    names = [name for name in {**config, **before} if name not in ("run_dir", "version")]
    return next((name for name in names if config.get(name) != before.get(name)), None)


def _plain(config: dict[str, Any] | None) -> Any:
    """Settings as they come back from JSON: paths as text, tuples as lists."""
    return json.loads(json.dumps(config, default=str))


def counters(path: Path) -> dict[str, Any]:
    """The counters of one checkpoint, after every file was held against its digest. Raises `CheckpointError`."""
    return manifest(path)["counters"]


def manifest(path: Path) -> dict[str, Any]:
    """Counters, settings, machine and files of one checkpoint, after every file was held against its digest.

    Raises `CheckpointError`.
    """
    try:
        found = json.loads((path / _MANIFEST).read_text())
        body = {name: found[name] for name in ("schema", "config", "machine", "counters", "files")}
        if found["digest"] != _digest(body):
            raise ValueError("it is not what was written")
        if body["schema"] != SCHEMA:
            raise ValueError(f"it is of version {body['schema']}, this memoroids reads version {SCHEMA}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"unreadable checkpoint {path}: {_MANIFEST}: {_said(error)}") from error
    files = body["files"]
    try:
        digests = _digests(path)
    except OSError as error:
        raise CheckpointError(f"unreadable checkpoint {path}: {_said(error)}") from error
    if digests != files:
        wrong = sorted(name for name in {*files, *digests} if files.get(name) != digests.get(name))
        what = "is not what was written" if wrong[0] in files and wrong[0] in digests else None
        what = what or ("is missing" if wrong[0] in files else "was not written with it")
        raise CheckpointError(f"damaged checkpoint {path}: {wrong[0]} {what}")
    return body


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
    names = re.compile(r"\d{9}(\.\d{4})?")
    return sorted(path for path in root.glob("*") if names.fullmatch(path.name) and path.is_dir())


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
