"""Trains RecurrentPPO of sb3-contrib, with its defaults, on the environments of development.

    python comparisons/recurrent_ppo/train_sb3.py --envs cartpole --seeds 3 --steps 100000 --output sb3.json

Needs what requirements.txt lists, and not the package, whose module of environments is loaded from its file. Each run
is trained with every number of threads that is asked for; runs that the output holds already are skipped.
"""

import argparse
import importlib.util
import json
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / "src" / "memoroids" / "envs" / "host" / "development.py"
NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "cartpole": ("cartpole", {}),
    "pendulum": ("pendulum", {}),
    "tmaze-10": ("tmaze", {"length": 10}),
    "lunar_lander": ("lunar_lander", {}),
}
"""The environments by name: their factory and its options."""
FIRST_EVALUATION_SEED = 1_000_000
"""Environments are evaluated on seeds from here on, training begins with the seed of the run."""


def environments(path: Path = ENVIRONMENTS) -> types.ModuleType:
    """The package's module of environments, loaded from its file."""
    spec = importlib.util.spec_from_file_location("development", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(name: str) -> Any:
    """The environment with this name."""
    factory, options = NAMES[name]
    return getattr(environments(), factory)(**options)


def pending(rows: Sequence[dict[str, Any]], names: Sequence[str], seeds: int, threads: Sequence[int], steps: int):
    """The runs that `rows` do not hold to their end, (name, seed, threads) each, seeds outermost."""
    done = {(row["env"], row["seed"], row["threads"]) for row in rows if row["steps"] >= steps and row["last"]}
    asked = [(name, seed, number) for seed in range(seeds) for name in names for number in threads]
    return [run for run in asked if run not in done]


class Stopwatch:
    """Seconds since the beginning, and those of them that were not spent in evaluations."""

    def __init__(self, clock: Any = time.perf_counter):
        self._clock, self._begun, self._evaluating = clock, clock(), 0.0

    def evaluating(self, work: Any) -> Any:
        """What `work()` returns; its time counts as that of an evaluation."""
        begun = self._clock()
        found = work()
        self._evaluating += self._clock() - begun
        return found

    def rates(self, steps: int) -> dict[str, float]:
        """Steps for each second so far, without the time of evaluations and with it."""
        whole = self._clock() - self._begun
        return {
            "steps_per_s": steps / max(whole - self._evaluating, 1e-9),
            "steps_per_s_with_evaluations": steps / max(whole, 1e-9),
            "seconds": whole,
        }


def train(name: str, seed: int, threads: int, steps: int, every: int, episodes: int) -> list[dict[str, Any]]:
    """One run: a row for each evaluation, every `every` steps and at the end, of `episodes` episodes both ways."""
    import torch
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.callbacks import BaseCallback

    torch.set_num_threads(threads)
    model = RecurrentPPO("MlpLstmPolicy", make(name), seed=seed, device="cpu")
    rows: list[dict[str, Any]] = []
    watch = Stopwatch()

    def evaluate(*, last: bool) -> None:
        means = watch.evaluating(
            lambda: {way: mean_return(model, name, episodes, way) for way in ("greedy", "sampled")}
        )
        row = {"env": name, "seed": seed, "threads": threads, "steps": model.num_timesteps, "last": last}
        rows.append(row | means | watch.rates(model.num_timesteps))

    class Evaluations(BaseCallback):
        """Evaluates between an update and the next rollout, when `every` steps have passed."""

        def _on_rollout_start(self) -> None:
            before = rows[-1]["steps"] if rows else 0
            if self.num_timesteps // every > before // every:
                evaluate(last=False)

        def _on_step(self) -> bool:
            return True

    model.learn(steps, callback=Evaluations())
    evaluate(last=True)
    return rows


def mean_return(model: Any, name: str, episodes: int, way: str) -> float:
    """The mean return of the model's policy over `episodes` episodes, greedy or sampled, on the same seeds each time.

    The random numbers of training go on as if there had been no evaluation.
    """
    import numpy as np
    import torch

    env, returns = make(name), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(FIRST_EVALUATION_SEED)
        for episode in range(episodes):
            observation, _ = env.reset(seed=FIRST_EVALUATION_SEED + episode)
            state, start, total, over = None, np.ones(1, bool), 0.0, False
            while not over:
                action, state = model.predict(
                    np.asarray(observation), state=state, episode_start=start, deterministic=way == "greedy"
                )
                observation, reward, terminated, truncated, _ = env.step(action)
                total, over, start = total + float(reward), terminated or truncated, np.zeros(1, bool)
            returns.append(total)
    return float(np.mean(returns))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is asked for, and writes all rows to the output after each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--envs", nargs="+", choices=list(NAMES), default=["cartpole", "pendulum", "tmaze-10"])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, counted from 0")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of PyTorch, a run for each")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=10_000, help="steps between evaluations")
    parser.add_argument("--episodes", type=int, default=20, help="episodes of each evaluation, both ways")
    parser.add_argument("--output", type=Path, required=True, help="JSON file of rows")
    asked = parser.parse_args(arguments)
    rows = json.loads(asked.output.read_text()) if asked.output.exists() else []
    for name, seed, threads in pending(rows, asked.envs, asked.seeds, asked.threads, asked.steps):
        found = train(name, seed, threads, asked.steps, asked.every, asked.episodes)
        rows += found
        asked.output.write_text(json.dumps(rows, indent=1) + "\n")
        end = found[-1]
        print(
            f"{name}, seed {seed}, {threads} threads: greedy {end['greedy']:.1f}, sampled {end['sampled']:.1f}, "
            f"{end['steps_per_s']:.0f} steps/s, with evaluations {end['steps_per_s_with_evaluations']:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
