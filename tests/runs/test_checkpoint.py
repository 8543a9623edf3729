"""Checkpoints: what was written comes back bit for bit, or one line says why not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from memoroids.runs import checkpoint
from memoroids.runs.checkpoint import CheckpointError

COUNTERS = {"episode": 12, "seconds": 1.5, "name": "run"}


class Nested(NamedTuple):
    """A structure that Orbax has never heard of."""

    left: Any
    right: Any


def tree(seed: int = 0) -> Nested:
    generator = np.random.default_rng(seed)
    return Nested(
        {
            "float": jnp.asarray(generator.normal(size=(3, 2)), jnp.float32),
            "half": jnp.asarray(generator.normal(size=2), jnp.bfloat16),
            "empty tuple": (),
            "none": None,
        },
        [
            jnp.asarray(generator.integers(100, size=4), jnp.int32),
            jnp.asarray([True, False, True]),
            (jnp.asarray(1 + 2j, jnp.complex64), jnp.int32(seed)),
            jax.random.key(seed + 7),
            jax.random.split(jax.random.key(seed), 2),
        ],
    )


def blank() -> Nested:
    def zero(leaf: jax.Array) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(jnp.zeros_like(jax.random.key_data(leaf)))
        return jnp.zeros_like(leaf)

    return jax.tree.map(zero, tree())


def assert_same(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def write(root: Path, step: int = 5, **options: Any) -> Path:
    return checkpoint.save(
        root, step, {"learner": tree(step), "replay": {"ring": jnp.arange(6.0)}}, COUNTERS, **options
    )


def test_nested_arrays_of_every_kind_come_back_bit_for_bit(tmp_path: Path):
    path = write(tmp_path / "checkpoints")
    assert path.parent == tmp_path / "checkpoints" and path.name == "000000005"
    assert checkpoint.latest(tmp_path / "checkpoints") == path
    assert checkpoint.counters(path) == COUNTERS
    assert_same(checkpoint.restore(path, "learner", blank()), tree(5))
    assert_same(checkpoint.restore(path, "replay", {"ring": jnp.zeros(6)}), {"ring": jnp.arange(6.0)})


def test_more_than_ten_leaves_keep_their_order(tmp_path: Path):
    leaves = [jnp.full(2, i) for i in range(25)]
    path = checkpoint.save(tmp_path, 1, {"many": leaves}, {})
    assert_same(checkpoint.restore(path, "many", [jnp.zeros_like(leaf) for leaf in leaves]), leaves)


def test_arrays_without_elements_are_no_obstacle(tmp_path: Path):
    leaves = {"none": jnp.zeros((0, 3)), "some": jnp.ones(2)}
    path = checkpoint.save(tmp_path, 1, {"part": leaves}, {})
    assert_same(checkpoint.restore(path, "part", jax.tree.map(jnp.zeros_like, leaves)), leaves)


def test_the_newest_are_kept_and_the_others_dropped(tmp_path: Path):
    for step in (1, 2, 10):
        write(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000002", "000000010"]
    write(tmp_path, 11, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["000000011"]
    assert checkpoint.latest(tmp_path).name == "000000011"


def test_a_step_written_again_holds_what_was_written_last(tmp_path: Path):
    write(tmp_path, 5)
    path = checkpoint.save(tmp_path, 5, {"learner": tree(1)}, {"episode": 99})
    assert checkpoint.counters(path) == {"episode": 99}
    assert_same(checkpoint.restore(path, "learner", blank()), tree(1))


def test_until_a_step_written_again_is_whole_the_one_before_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = write(tmp_path, 5, keep=1)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "_drop", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 5, {"learner": tree(1)}, {"episode": 99}, keep=1)
    second = checkpoint.latest(tmp_path)
    assert second != first and checkpoint.counters(second) == {"episode": 99}
    assert checkpoint.counters(first) != {"episode": 99}
    monkeypatch.undo()
    third = checkpoint.save(tmp_path, 5, {"learner": tree(1)}, {"episode": 100}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == [third.name] and third.name > second.name > first.name


def test_newer_ones_that_were_passed_over_take_no_place_of_those_kept(tmp_path: Path):
    for step in (1, 2, 9):
        write(tmp_path, step, keep=3)
    (tmp_path / "000000009" / "manifest.json").write_text("{}")
    for step in (3, 4):
        write(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000003", "000000004", "000000009"]
    assert checkpoint.newest_good(tmp_path, lambda error: None) == tmp_path / "000000004"


def one_line(error: pytest.ExceptionInfo, path: Path) -> str:
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def test_a_directory_without_a_checkpoint_is_named(tmp_path: Path):
    (tmp_path / "000000003.partial").mkdir()
    (tmp_path / "notes").mkdir()
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError) as error:
            checkpoint.latest(root)
        one_line(error, root)


def largest(path: Path) -> Path:
    return max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 0b100
    file.write_bytes(bytes(content))


def flip_data(path: Path) -> None:
    file = largest(path / "learner")
    flip(file, file.stat().st_size // 2)


def flip_first_bit_of_every_kind_of_file(path: Path) -> None:
    flip(path / "replay" / "_METADATA", 0)


def truncate(path: Path) -> None:
    file = largest(path / "replay")
    file.write_bytes(file.read_bytes()[:-1])


def delete(path: Path) -> None:
    largest(path / "learner").unlink()


def add(path: Path) -> None:
    (path / "learner" / "more").write_text("not ours")


def no_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def torn_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text[: len(text) // 2])


def binary_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"\xff\xfe\x00\x80")


def foreign_manifest(path: Path) -> None:
    (path / "manifest.json").write_text('{"name": "some package", "version": 1}')


def list_for_a_manifest(path: Path) -> None:
    (path / "manifest.json").write_text("[1, 2]")


def foreign_digests(path: Path) -> None:
    (path / "manifest.json").write_text('{"counters": {}, "files": []}')


def flip_counter(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    assert '"episode": 12' in text
    (path / "manifest.json").write_text(text.replace('"episode": 12', '"episode": 32'))


@pytest.mark.parametrize(
    "damage",
    [
        flip_data,
        flip_first_bit_of_every_kind_of_file,
        truncate,
        delete,
        add,
        no_manifest,
        torn_manifest,
        binary_manifest,
        foreign_manifest,
        list_for_a_manifest,
        foreign_digests,
        flip_counter,
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(damage: Callable[[Path], None], tmp_path: Path):
    path = write(tmp_path)
    damage(path)
    with pytest.raises(CheckpointError) as error:
        checkpoint.counters(path)
    one_line(error, path)


@pytest.mark.parametrize(
    ("like", "differs"),
    [
        ({"ring": jnp.zeros(5)}, "['ring'] is float32[6] there and float32[5] here"),
        ({"ring": jnp.zeros((6, 1))}, "['ring'] is float32[6] there and float32[6, 1] here"),
        ({"ring": jnp.zeros(6, jnp.int32)}, "['ring'] is float32[6] there and int32[6] here"),
        ({"ring": jax.random.split(jax.random.key(0), 6)}, "['ring'] is float32[6] there and uint32[6, 2] here"),
        ({"ring": jnp.zeros(6), "more": jnp.zeros(1)}, "1 there and 2 here"),
        ({}, "1 there and 0 here"),
    ],
    ids=["shorter", "deeper", "another type", "keys", "one array more", "one array less"],
)
def test_a_part_of_another_shape_is_refused_in_one_line(
    like: Any, differs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write(tmp_path)
    read: list[Any] = []
    monkeypatch.setattr(ocp.StandardCheckpointer, "restore", lambda *arguments: read.append(arguments))
    with pytest.raises(CheckpointError) as error:
        checkpoint.restore(path, "replay", like)
    assert "replay" in one_line(error, path) and differs in str(error.value)
    assert not read  # a read that fails leaves Orbax's other tasks behind, to be reported in a later test


def test_a_part_that_was_never_written_is_named(tmp_path: Path):
    path = checkpoint.save(tmp_path, 1, {"learner": tree()}, {})
    with pytest.raises(CheckpointError) as error:
        checkpoint.restore(path, "replay", {"ring": jnp.zeros(6)})
    assert "replay" in one_line(error, path)


def test_a_write_that_fails_leaves_the_one_before_as_it_was(tmp_path: Path):
    before = write(tmp_path, 5)
    content = {file: file.read_bytes() for file in before.rglob("*") if file.is_file()}
    for parts, counters in (
        ({"learner": tree(6), "replay": {"ring": object()}}, COUNTERS),
        ({"learner": tree(6)}, {"episode": object()}),
    ):
        for step in (5, 6):
            with pytest.raises(CheckpointError) as error:
                checkpoint.save(tmp_path, step, parts, counters, keep=1)
            one_line(error, tmp_path / f"{step:09d}")
            assert checkpoint.latest(tmp_path) == before
            assert {file: file.read_bytes() for file in before.rglob("*") if file.is_file()} == content
    assert checkpoint.counters(write(tmp_path, 6)) == COUNTERS


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(CheckpointError) as error:
        write(tmp_path / "taken")
    one_line(error, tmp_path / "taken")


def test_counters_are_plain_json_beside_the_arrays(tmp_path: Path):
    path = write(tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["counters"] == COUNTERS
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} - {"manifest.json"}
    assert set(manifest["files"]) == files
