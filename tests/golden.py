"""Golden runs: digests of what small runs learn, store and write, to compare two versions of the code.

    python tests/golden.py --output before.json
    python tests/golden.py --output after.json --against before.json    # exits 1 if one differs

Digests depend on the machine and the version of XLA, so none are kept in the repository: write them before and after a
change that must not affect behaviour.
"""

import argparse
import csv
import hashlib
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from memoroids.runs.metrics import TIMES

SMALL = (
    "--memory ffm --memory-sizes trace_size 4 context_size 2 --width 8 --eval-every 8 --eval-episodes 2 "
    "--final-episodes 2 --checkpoint-every 16"
)
REPLAY = "--random-episodes 8 --train-episodes 24 --batch-size 100 --buffer-size 2000 --num-envs 4"
ROLLOUT = "--steps None --train-episodes 24 --num-envs 4"
STEPS = "--steps 1500 --num-envs 4"
CARTPOLE, CARDS, PENDULUM = "PositionOnlyCartPoleEasy", "RepeatPreviousEasy", "PositionOnlyPendulumEasy"
RUNS = {
    "host dqn": f"--env {CARTPOLE} {REPLAY}",
    "host dqn lru": f"--env {CARDS} {REPLAY} --memory lru --memory-sizes layers 2 state_size 4",
    "host dqn processes": f"--env {CARTPOLE} {REPLAY} --processes 2",
    "host dqn paper": f"--env RepeatFirstEasy {REPLAY} --preset paper",
    "host dqn to steps": f"--env RepeatFirstEasy {REPLAY} --steps 500",
    "host segments zero": f"--env {CARTPOLE} {REPLAY} --batching segments --segment-length 10",
    "host segments stored": f"--env {CARTPOLE} {REPLAY} --batching segments --segment-state stored",
    "host segments burn-in": f"--env {CARTPOLE} {REPLAY} --batching segments --segment-state burn-in",
    "host ppo": f"--env {CARTPOLE} --algorithm ppo {ROLLOUT}",
    "host ppo continuous": f"--env {PENDULUM} --algorithm ppo {ROLLOUT}",
    "host pqn": f"--env {CARTPOLE} --algorithm pqn --minibatches 4 {ROLLOUT}",
    "device dqn": f"--env device:{CARTPOLE} {REPLAY}",
    "device dqn prioritised": f"--env device:{CARDS} {REPLAY} --prioritised",
    "device dqn seeds": f"--env device:{CARTPOLE} {REPLAY} --seeds 2",
    "device dqn seeds mapped": f"--env device:{CARDS} {REPLAY} --seeds 2 --mapping vmap",
    "device ppo": f"--env device:{CARTPOLE} --algorithm ppo {STEPS} --rollout 16",
    "device ppo steps": f"--env device:{CARDS} --algorithm ppo --num-envs 4 --steps 2000 --eval-every 4",
    "device ppo continuous": f"--env device:{PENDULUM} --algorithm ppo {STEPS}",
    "device pqn": f"--env device:{CARTPOLE} --algorithm pqn --minibatches 4 {STEPS} --rollout 16",
    "device pqn seeds": f"--env device:{CARDS} --algorithm pqn --minibatches 4 {ROLLOUT} --seeds 2",
}


def digest_of_arrays(path: Path) -> str:
    """The digest of one part of a checkpoint, independent of the order of its leaves."""
    with ocp.StandardCheckpointer() as checkpointer:
        leaves = checkpointer.restore(path.absolute())
    each = []
    for leaf in leaves.values():
        array = np.asarray(leaf)
        each.append(hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes()).hexdigest())
    return hashlib.sha256(" ".join(sorted(each)).encode()).hexdigest()[:16]


def digest_of_rows(path: Path) -> str:
    with path.open() as file:
        rows = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
    assert rows, f"{path} is empty"
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def digests(run_dir: Path) -> dict[str, str]:
    """Digests of the newest checkpoint's parts and of the metrics without timing columns."""
    found = {"metrics": digest_of_rows(run_dir / "metrics.csv")}
    newest = max(path for path in (run_dir / "checkpoints").iterdir() if path.is_dir())
    others = []
    for part in sorted(path for path in newest.iterdir() if path.is_dir()):
        one = digest_of_arrays(part)
        if part.name in ("learner", "replay", "best"):
            found[part.name] = one
        else:
            others.append(one)
    return found | {"other state": hashlib.sha256(" ".join(sorted(others)).encode()).hexdigest()[:16]}


def run(name: str, root: Path) -> dict[str, str]:
    run_dir = root / name.replace(" ", "-")
    # The options of a run come after the shared ones, since the last occurrence of an option counts.
    command = [sys.executable, "-m", "memoroids", "train", *SMALL.split(), *RUNS[name].split()]
    done = subprocess.run([*command, "--run-dir", str(run_dir)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: exit status {done.returncode}: {done.stderr.strip()[-2000:]}")
    seeds = sorted(run_dir.glob("seed*"))
    found = {f"{path.name} {part}": value for path in seeds for part, value in digests(path).items()}
    return found or digests(run_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="file to write the digests to, as JSON")
    parser.add_argument("--against", type=Path, help="digests of another version, which must be equal")
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS), help="some of the runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(2) as pool:
        found = dict(zip(options.only, pool.map(lambda name: run(name, Path(root)), options.only), strict=True))
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    before = json.loads(options.against.read_text()) if options.against else found
    differing = [f"{name}: {part}" for name in found for part in found[name] if found[name][part] != before[name][part]]
    for name, parts in found.items():
        print(f"{name:26}{'  '.join(f'{part} {value}' for part, value in parts.items())}")
    print(f"{len(found)} runs, {len(differing)} digests differ from {options.against or 'nothing'}")
    for line in differing:
        print(f"differs: {line}")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
