"""Checkpoints of a run: arrays saved by Orbax, with a manifest of counters, settings and digests.

Loading a checkpoint never executes anything it contains.
"""

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
import jax.numpy as jnp

from memoroids._util.messages import one_line
from memoroids.runs.settings import flat


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written. The message names the path and the problem."""


_MANIFEST = "manifest.json"

SCHEMA = 2
"""The version of the checkpoint format; checkpoints of other versions are refused."""

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
    """Writes a checkpoint to `root`/STEP and deletes all but the newest `keep` - 1 older ones.

    The directory gets its final name only when all its content is on disk, so a failed write leaves older checkpoints
    unchanged. If a checkpoint of the same step exists, the new one is named `root`/STEP.0001 and so on, and the old one
    is deleted only afterwards. Checkpoints of later steps, which a resumed run has refused, are kept.

    **Args:** `parts`: the pytrees of arrays, each saved as an Orbax tree under its name. `counters`, `config` (the
    settings) and `machine` (see `conditions`): written to the manifest as JSON.

    **Returns:** the directory of the checkpoint. Raises `CheckpointError` if it cannot be written.
    """
    import orbax.checkpoint as ocp  # slow to import, and needed only here

    same = [path for path in _steps(root) if path.name.startswith(f"{step:09d}")]
    number = int(same[-1].name[10:] or 0) + 1 if same else 0
    final = root / (f"{step:09d}.{number:04d}" if number else f"{step:09d}")
    partial = root / f"{final.name}{_PARTIAL}"
    try:
        for left in (*root.glob(f"*{_PARTIAL}"), *root.glob(f"*{_GONE}")):  # left behind by a run that was killed
            shutil.rmtree(left)
        partial.mkdir(parents=True)
        with _checkpointer(ocp) as checkpointer:
            for name, tree in parts.items():
                leaves = _leaves(tree)
                # With several processes, Orbax saves only arrays that are global or not on a device.
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
        shutil.rmtree(partial, ignore_errors=True)  # on a full disk, an incomplete checkpoint would waste space
        raise CheckpointError(f"cannot write checkpoint {final}: {_describe(error)}") from error
    older = [path for path in _steps(root) if path.name < final.name and path not in same]
    for old in (*same, *older[: max(len(older) - keep + 1, 0)]):
        with contextlib.suppress(OSError):
            _drop(old)
    return final


def _sync(directory: Path) -> None:
    """Forces everything under `directory` to disk, so that it is complete even after a power failure."""
    for path in (directory, *directory.rglob("*")):
        _sync_one(path)


def _sync_one(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows writes the entries of directories without being asked
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _drop(path: Path) -> None:
    """Deletes a checkpoint. It is renamed first, so that an incomplete one is never taken for a checkpoint."""
    shutil.rmtree(path.rename(path.with_name(path.name + _GONE)))


def latest(root: Path) -> Path:
    """The newest checkpoint under `root`. Raises `CheckpointError` if there is none."""
    steps = _steps(root)
    if not steps:
        raise CheckpointError(f"no checkpoint in {root}")
    return steps[-1]


def newest_good(
    root: Path, refused: Callable[[CheckpointError], None], config: dict[str, Any] | None = None
) -> Path | None:
    """Finds the newest checkpoint under `root` whose files match their digests; None if there is no checkpoint at all.

    With `config`, it must also have been written with the same settings. `refused` is called with the error of each
    newer checkpoint that was passed over. Raises the `CheckpointError` of the newest checkpoint if all are refused.
    """
    errors = []
    for path in reversed(_steps(root)):
        try:
            before = manifest(path)["config"]
            if config is not None and (field := _differing(config, before or {})):
                then, now = (flat(some).get(field) for some in (before or {}, config))
                raise CheckpointError(
                    f"foreign checkpoint {path}: its run has {field} {then!r}, the settings here say {now!r}"
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
    """The name of the first setting that differs, ignoring the run directory and the version of memoroids."""
    config, before = flat(_plain(config)), flat(before)
    names = [name for name in {**config, **before} if name not in ("run_dir", "version")]
    return next((name for name in names if config.get(name) != before.get(name)), None)


def _plain(config: dict[str, Any] | None) -> Any:
    """Settings as they are read back from JSON: paths as strings, tuples as lists."""
    return json.loads(json.dumps(config, default=str))


def counters(path: Path) -> dict[str, Any]:
    """The counters of a checkpoint whose files match their digests. Raises `CheckpointError` if they do not."""
    return manifest(path)["counters"]


def manifest(path: Path) -> dict[str, Any]:
    """Reads the manifest of a checkpoint and checks every file against its digest.

    **Returns:** the keys `schema`, `config`, `machine`, `counters` and `files` (digest by path). Raises
    `CheckpointError` if the manifest cannot be read or a file is damaged, missing or not listed.
    """
    try:
        found = json.loads((path / _MANIFEST).read_text())
        body = {name: found[name] for name in ("schema", "config", "machine", "counters", "files")}
        if found["digest"] != _digest(body):
            raise ValueError("its content does not match its digest")
        if body["schema"] != SCHEMA:
            raise ValueError(
                f"it has format version {body['schema']}, but this version of memoroids reads version {SCHEMA}"
            )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"unreadable checkpoint {path}: {_MANIFEST}: {_describe(error)}") from error
    files = body["files"]
    try:
        digests = _digests(path)
    except OSError as error:
        raise CheckpointError(f"unreadable checkpoint {path}: {_describe(error)}") from error
    if digests != files:
        wrong = sorted(name for name in {*files, *digests} if files.get(name) != digests.get(name))
        what = "does not match its digest" if wrong[0] in files and wrong[0] in digests else None
        what = what or ("is missing" if wrong[0] in files else "is not listed in its manifest")
        raise CheckpointError(f"damaged checkpoint {path}: {wrong[0]} {what}")
    return body


def restore(path: Path, part: str, like: Any) -> Any:
    """Reads one part of a checkpoint, with the structure, shapes and dtypes of `like`.

    Raises `CheckpointError` if it cannot be read, or holds arrays of other shapes or dtypes. Digests are not checked
    here; see `manifest`.
    """
    import orbax.checkpoint as ocp

    place = (path / part).absolute()
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), _leaves(like))
    try:
        if not place.is_dir():
            raise ValueError("it was not saved")
        with _checkpointer(ocp) as checkpointer:
            # Compared first: Orbax reads in concurrent tasks, and one that fails leaves the others behind it.
            if differs := _difference(checkpointer.metadata(place).item_metadata.tree, like):
                raise ValueError(differs)
            leaves = checkpointer.restore(place, abstract)
    except Exception as error:
        raise CheckpointError(f"unreadable checkpoint {path}: {part}: {_describe(error)}") from error
    restored = [leaves.get(_name(i), leaf) for i, leaf in enumerate(jax.tree.leaves(like))]
    return jax.tree.unflatten(jax.tree.structure(like), restored)


def _difference(saved: dict[str, Any], like: Any) -> str | None:
    """The first array of `like` that has another shape or dtype in Orbax's metadata `saved`; None if all agree."""
    wanted = _leaves(like)
    places = [jax.tree_util.keystr(place) for place, _ in jax.tree_util.tree_leaves_with_path(like)]
    if saved.keys() != wanted.keys():
        return f"the arrays with elements are not the same, {len(saved)} there and {len(wanted)} here"
    for name, leaf in wanted.items():
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)  # Orbax saves the numbers of a random key
        there, here = (f"{each.dtype}{list(each.shape)}" for each in (saved[name], leaf))
        if there != here:
            return f"the array {places[int(name)]} is {there} there and {here} here"
    return None


def _checkpointer(ocp: Any) -> Any:
    """A checkpointer that does not synchronise processes: only the first one writes, and each one reads on its own."""
    if jax.process_count() == 1:
        return ocp.StandardCheckpointer()
    me = jax.process_index()
    alone = {"primary_host": me, "active_processes": {me}, "barrier_sync_key_prefix": f"process{me}"}
    return ocp.StandardCheckpointer(multiprocessing_options=ocp.options.MultiprocessingOptions(**alone))


def _name(number: int) -> str:
    return f"{number:05d}"


def _leaves(tree: Any) -> dict[str, Any]:
    """Array leaves by number, so that Orbax sees no custom types. Orbax refuses empty arrays; they are left out."""
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


def _describe(error: BaseException) -> str:
    """The type of an error and the first 300 characters of its message; those of Orbax are very long."""
    kind, _, message = one_line(error).partition(": ")
    return f"{kind}: {message[:300]}"
