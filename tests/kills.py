"""Kills a run at random moments, resumes it each time, and compares the result with an uninterrupted run.

`python tests/kills.py --kills 50` prints where each kill happened, and whether parameters, replay buffer and metrics
are equal in the end. `--device` uses a device environment. Exits with 1 if anything differs.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from memoroids.runs import checkpoint, metrics
from memoroids.runs.run_directory import CHECKPOINTS, CONFIG, METRICS
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import to_json

TIMED = metrics.TIMES

# The process kills itself, because a kill from outside cannot hit the writing of a checkpoint reliably. The signal is
# the same: nothing is caught or flushed. The seed determines the moment: either a step within the writing of the
# `write`-th checkpoint of the process (its Orbax trees, its manifest, its renaming, the deletion of old ones), or a
# time after the previous checkpoint was written (after the start, for the first one).
CHILD = """
import json, os, pathlib, random, shutil, signal, sys, threading, time
from memoroids.cli import main as cli
from memoroids.runs import checkpoint

where, delay, write, steps = json.loads(sys.argv[1])

def end(name):
    pathlib.Path(where).write_text(name)
    os.kill(os.getpid(), signal.SIGKILL)

def later():
    time.sleep(delay)
    end("writing a checkpoint" if writing else "training")

def wait():
    if delay is not None and written == write - 1:
        threading.Thread(target=later, daemon=True).start()

writing, written = False, 0
wait()
save = checkpoint.save

def counted(*arguments, **options):
    global writing, written
    written, writing = written + 1, True
    if steps is not None and write == written:
        import orbax.checkpoint
        trace = 0
        def step(frame, event, argument):
            nonlocal trace
            if event == "call":
                trace += 1
                if trace == steps:
                    end("writing a checkpoint")
            return None
        sys.setprofile(step)
    try:
        return save(*arguments, **options)
    finally:
        sys.setprofile(None)
        writing = False
        wait()

checkpoint.save = counted
sys.argv = ["memoroids", *sys.argv[2:]]
cli.main()
"""


def settings(*, device: bool, train_episodes: int = 240, checkpoint_every: int = 20) -> TrainConfig:
    """A run of RepeatPreviousEasy that writes a checkpoint every few seconds."""
    return TrainConfig.of(
        env="device:RepeatPreviousEasy" if device else "popgym-RepeatPreviousEasy-v0",
        memory="lru",
        memory_sizes={"state_size": 16},
        width=32,
        random_episodes=40,
        updates_per_episode=1,
        train_episodes=train_episodes,
        batch_size=500,
        buffer_size=5_000,
        num_envs=4,
        eval_every=10,
        eval_episodes=4,
        final_episodes=10,
        checkpoint_every=checkpoint_every,
    )


def resume(run_dir: Path, kill: tuple[float | None, int | None, int | None]) -> str | None:
    """Resumes a run in a process until it is killed. Returns what it was doing then; None if the run finished."""
    with tempfile.TemporaryDirectory() as place:
        where = Path(place) / "where"
        command = [sys.executable, "-c", CHILD, json.dumps([str(where), *kill]), "resume", str(run_dir)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": _path()})
        if done.returncode == -signal.SIGKILL:
            return where.read_text()
        if done.returncode:
            raise RuntimeError(f"the run ended with {done.returncode}: {done.stderr}")
        return None


def _path() -> str:
    return os.pathsep.join(path for path in sys.path if path)


def begin(config: TrainConfig, run_dir: Path) -> None:
    """Makes the directory of a run that was killed before its first checkpoint."""
    run_dir.mkdir(parents=True)
    (run_dir / CONFIG).write_text(to_json(config.replace(run_dir=run_dir)) + "\n")


def state(run_dir: Path) -> dict[str, Any]:
    """What has to be equal: metrics without times, the final score, and every array of the last checkpoint."""
    path = checkpoint.latest(run_dir / CHECKPOINTS)
    found = checkpoint.manifest(path)
    rows = [{k: v for k, v in row.items() if k not in TIMED} for row in metrics.read(run_dir / METRICS)]
    counters = {k: v for k, v in found["counters"].items() if k not in ("seconds", "metrics_bytes")}
    summary = json.loads((run_dir / "summary.json").read_text())
    return {
        "metrics": rows,
        "summary": {k: v for k, v in summary.items() if k not in TIMED},
        "counters": counters,
        **{part.name: _arrays(part) for part in sorted(path.iterdir()) if part.is_dir()},
    }


def _arrays(part: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """Dtype, shape and hash of each array of one Orbax tree."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(part.absolute())
    arrays = {name: np.asarray(leaf) for name, leaf in tree.items()}
    return {
        name: (str(leaf.dtype), leaf.shape, hashlib.sha256(leaf.tobytes()).hexdigest()) for name, leaf in arrays.items()
    }


def campaign(config: TrainConfig, root: Path, *, kills: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Kills runs `kills` times, a third of them during checkpoints. Returns what they were doing, and what differs."""
    generator = random.Random(seed)
    begin(config, root / "whole")
    started = time.perf_counter()
    assert resume(root / "whole", (None, None, None)) is None
    seconds = time.perf_counter() - started
    struck: Counter[str] = Counter()
    run = 0
    equal: list[str] = []
    while sum(struck.values()) < kills:
        run += 1
        parts = root / f"parts{run}"
        begin(config, parts)
        while True:
            kill: tuple[float | None, int | None, int | None] = (None, None, None)
            if sum(struck.values()) < kills:
                write = generator.randrange(1, 4)
                if generator.random() < 1 / 3:
                    kill = (None, write, int(generator.uniform(0, 46_000)))
                else:
                    kill = (generator.uniform(0.0, seconds / (2 if write == 1 else 10)), write, None)
            where = resume(parts, kill)
            if where is None:
                break
            struck[where] += 1
            print(f"kill {sum(struck.values())}: {where}, {_standing(parts)}", flush=True)
        whole, mine = state(root / "whole"), state(parts)
        equal += [f"run {run}: {name}" for name in whole if whole[name] != mine.get(name)]
        print(f"run {run} ended; differs in: {', '.join(equal) or 'nothing'}", flush=True)
        shutil.rmtree(parts)
    return struck, equal


def _standing(run_dir: Path) -> str:
    """The point from which a killed run will resume."""
    try:
        done = checkpoint.counters(checkpoint.latest(run_dir / CHECKPOINTS))
    except checkpoint.CheckpointError:
        return "before the first checkpoint"
    return f"{done['random'] + done['episode']} episodes in its newest checkpoint"


def main() -> None:
    """Prints where kills happened, and what differs from the uninterrupted run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as root:
        struck, different = campaign(
            settings(device=options.device), Path(root), kills=options.kills, seed=options.seed
        )
    print(f"{sum(struck.values())} kills: {dict(struck)}")
    print(f"differs: {', '.join(different) or 'nothing'}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
