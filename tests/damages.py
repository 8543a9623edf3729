"""Damages checkpoints of a real run, one at a time, and checks that each is refused.

`python tests/damages.py --count 1000` prints, for each kind of damage, how many checkpoints were refused with a
one-line message that names the checkpoint while the previous, intact checkpoint was used. Exits with 1 if any was not.
"""

import argparse
import pickle
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from memoroids.agents.dqn import DQNConfig
from memoroids.runs import checkpoint
from memoroids.runs.checkpoint import CheckpointError
from memoroids.runs.load import evaluate_run
from memoroids.runs.run_directory import CHECKPOINTS, load_config
from memoroids.runs.settings import TrainConfig
from memoroids.runs.train import train


class Evil:
    """An object that creates a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


class Damaged(NamedTuple):
    """A damage to a checkpoint and its outcome: `problem` is None if the checkpoint was refused correctly."""

    kind: str
    what: str
    problem: str | None


def run_of(root: Path, seed: int) -> Path:
    """Trains a run with two checkpoints. Returns its directory."""
    config = TrainConfig.of(
        env="popgym-RepeatPreviousEasy-v0",
        memory="lru",
        memory_sizes={"state_size": 4},
        width=8,
        seed=seed,
        random_episodes=3,
        updates_per_episode=1,
        train_episodes=6,
        batch_size=60,
        buffer_size=1_000,
        num_envs=2,
        eval_every=3,
        eval_episodes=1,
        final_episodes=1,
        checkpoint_every=3,
        agent=DQNConfig(warmup=0),
    )
    run_dir = root / f"run{seed}"
    train(config.replace(run_dir=run_dir), run_dir)
    return run_dir


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def truncated(path: Path, other: Path, mark: Path, dice: random.Random) -> str:
    """Truncates a file to a length between zero and one byte less than its size."""
    file = dice.choice([file for file in _files(path) if file.stat().st_size])
    size = file.stat().st_size
    length = dice.choice((0, size - 1, dice.randrange(size)))
    with file.open("rb+") as content:
        content.truncate(length)
    return f"{file.relative_to(path)} cut to {length} of {size} bytes"


def flipped(path: Path, other: Path, mark: Path, dice: random.Random) -> str:
    """Flips one bit of a file."""
    file = dice.choice([file for file in _files(path) if file.stat().st_size])
    content = bytearray(file.read_bytes())
    bit = dice.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(bytes(content))
    return f"{file.relative_to(path)} bit {bit}"


def foreign(path: Path, other: Path, mark: Path, dice: random.Random) -> str:
    """Replaces a file with one from elsewhere, adds or deletes one, or replaces the checkpoint with another run's."""
    file = dice.choice(_files(path))
    name = file.relative_to(path)
    kind = dice.choice(("another run's file", "a pickle", "another file", "one more", "one less", "another run's"))
    if kind == "another run's file":
        source = dice.choice([f for f in _files(other) if f.read_bytes() not in {m.read_bytes() for m in _files(path)}])
        file.write_bytes(source.read_bytes())
    elif kind == "a pickle":
        file.write_bytes(pickle.dumps(Evil(mark)))
    elif kind == "another file":
        file.write_bytes(dice.randbytes(dice.randrange(1, 2_000)))
    elif kind == "one more":
        (file.parent / f"{dice.randrange(10**6)}.pkl").write_bytes(pickle.dumps(Evil(mark)))
    elif kind == "one less":
        file.unlink()
    else:
        shutil.rmtree(path)
        shutil.copytree(other, path)
    return f"{kind}: {name}"


KINDS: tuple[Callable[[Path, Path, Path, random.Random], str], ...] = (truncated, flipped, foreign)


def damages(root: Path, *, count: int, seed: int) -> list[Damaged]:
    """Damages the newer checkpoint of a run `count` times."""
    dice = random.Random(seed)
    mine, others = run_of(root, 0), run_of(root, 1)
    config = asdict(load_config(mine))
    healthy = root / "healthy"
    (mine / CHECKPOINTS).rename(healthy)
    older, newest = sorted(path.name for path in healthy.iterdir())
    foreign_one = checkpoint.latest(others / CHECKPOINTS)
    mark = root / "executed"
    found = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        place = mine / CHECKPOINTS
        shutil.copytree(healthy, place)
        what = kind(place / newest, foreign_one, mark, dice)
        found.append(Damaged(kind.__name__, what, _problem(mine, place, older, newest, config, mark, number)))
        shutil.rmtree(place)
    return found


def _problem(
    run_dir: Path, place: Path, older: str, newest: str, config: dict[str, object], mark: Path, number: int
) -> str | None:
    refused: list[CheckpointError] = []
    try:
        good = checkpoint.newest_good(place, refused.append, config)
        shutil.rmtree(place / older)
        try:
            checkpoint.newest_good(place, refused.append, config)
            return "accepted as the only checkpoint"
        except CheckpointError as error:
            refused.append(error)
        if number % 50 == 0:
            try:
                evaluate_run(run_dir, 1, 0)
                return "evaluated"
            except CheckpointError as error:
                refused.append(error)
    except Exception as error:  # any other error is a finding
        return f"{type(error).__name__}: {error}"
    if good is None or good.name != older:
        return f"{good} was accepted"
    for error in refused:
        if "\n" in str(error) or str(place / newest) not in str(error):
            return f"unclear message: {error}"
    return "a pickle was executed" if mark.exists() else None


def main() -> None:
    """Prints how many damaged checkpoints of each kind were refused, and every one that was not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as root:
        found = damages(Path(root), count=options.count, seed=options.seed)
    kinds, refused = Counter(one.kind for one in found), Counter(one.kind for one in found if one.problem is None)
    for kind, number in kinds.items():
        print(f"{kind:12}{number:6}  refused, the previous one used: {refused[kind]}")
    for one in found:
        if one.problem is not None:
            print(f"{one.kind}, {one.what}: {one.problem}")
    sys.exit(len(found) != sum(refused.values()))


if __name__ == "__main__":
    main()
