"""What the command line shows of a run: progress, the closing table, listings."""

import inspect
import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from memoroids._util.messages import one_line
from memoroids.envs import popgym_ids, short_name
from memoroids.memory import REGISTRY
from memoroids.runs.metrics import draw_comparison
from memoroids.runs.presets import PRESETS, TASKS, preset
from memoroids.runs.recorder import Outcome, episodes_to
from memoroids.runs.recorder import Progress as Moment
from memoroids.runs.run_directory import CURVE, METRICS, SUMMARY, load_config, read_rows, read_summary
from memoroids.runs.settings import TrainConfig


def clock(seconds: float | None) -> str:
    """Seconds as m:ss or h:mm:ss; - where they are not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def batching_of(config: TrainConfig) -> str:
    """How a run learns and batches, in a word or two."""
    if config.algorithm != "dqn":
        return config.algorithm
    return "tapes" if config.batching == "tape" else f"segments L={config.segment_length}"


class _Figures(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["figures"])


class Display:
    """A live bar on a terminal; elsewhere a plain line every few seconds."""

    def __init__(self, config: TrainConfig, run_dir: Path, *, resume: bool):
        self.config, self.run_dir = config, run_dir
        self.console = Console()
        verb = "resuming" if resume else "training"
        seeds = f"seed {config.seed}"
        if config.seeds > 1:
            seeds = f"seeds {config.seed} to {config.seed + config.seeds - 1}"
        random = f"{config.random_episodes} random and " if config.random_episodes else ""
        until = f"{config.train_episodes} training episodes"
        if config.train_steps is not None:
            until = f"training to {config.train_steps:,} environment steps"
        self.banner: str | None = (
            f"{verb} {config.memory} on {config.env}, {batching_of(config)}, {seeds}, "
            f"preset {config.preset}: {random}{until} -> {run_dir}"
        )
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=18), _Figures())
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.progress.add_task("random", total=max(config.random_episodes, 1), figures="")
        self.printed = -math.inf

    def __enter__(self) -> "Display":
        self.progress.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.progress.stop()

    def show(self, moment: Moment) -> None:
        if self.banner is not None:
            self.console.print(self.banner, highlight=False, soft_wrap=True, markup=False)
            self.banner = None
        counters, row, config = moment.counters, moment.row, self.config
        if counters.random < config.random_episodes:
            phase, done, total = "random", counters.random, config.random_episodes
            figures = f"{done}/{total} episodes  {counters.env_steps:,} steps"
        elif row is None:
            phase, done, total = "training", 0, 1
            figures = f"{counters.episode} episodes  {counters.env_steps:,} steps"
        else:
            phase, done, total = "training", counters.episode, config.train_episodes
            if config.train_steps is not None:
                done, total = counters.env_steps, config.train_steps
            episodes = f"{counters.episode}" if config.train_steps else f"{counters.episode}/{config.train_episodes}"
            figures = (
                f"{episodes} episodes  {counters.env_steps:,} steps  {counters.updates:,} updates  "
                f"loss {row['loss']:.2g}  ε {row['epsilon']:.2f}  return {row['eval_return']:+.3f}  "
                f"{row['steps_per_s']:,.0f} steps/s  {clock(moment.seconds_left)} left"
            )
        if row is not None and row["skipped"]:
            figures += f"  {row['skipped']:.0f} non-finite updates skipped"
        if self.console.is_terminal:
            self.progress.update(self.task, description=phase, completed=done, total=max(total, 1), figures=figures)
        elif time.monotonic() - self.printed >= 5 or done >= total:
            self.printed = time.monotonic()
            print(f"{phase}: {figures}", flush=True)

    def conclude(self, outcome: Outcome, seconds: float) -> None:
        """The closing table and the commands to try next."""
        run, rows, config = outcome.run_dir, outcome.rows, self.config
        table = Table(show_header=False, title="interrupted" if outcome.final is None else "finished")
        if outcome.final is not None:
            low, high = outcome.final.interval()
            count = len(outcome.final.returns)
            table.add_row(f"final return, {count} fresh seeds", f"{outcome.final.mean:.3f}  [{low:.3f}, {high:.3f}]")
        if rows:
            returns = [row["eval_return"] for row in rows]
            mean = sum(returns) / len(returns)
            reached = episodes_to(rows, 0.95)
            table.add_row("evaluation return", f"last {returns[-1]:.3f}  mean {mean:.3f}  max {max(returns):.3f}")
            table.add_row("0.95 reached to stay", f"after {reached} training episodes" if reached else "no")
            table.add_row("training episodes", f"{rows[-1]['episode']:,.0f}")
            table.add_row("environment steps", f"{rows[-1]['env_steps']:,.0f}")
            table.add_row("updates", f"{rows[-1]['updates']:,.0f}, {rows[-1]['transitions']:,.0f} transitions")
        table.add_row("time", f"{seconds:.0f} s")
        metrics = run / METRICS if config.seeds == 1 else f"{run}/seed*/{METRICS}"
        table.add_row("written", escape(f"{metrics}, {run / CURVE}"))
        self.console.print(table)
        other = "mlp" if config.memory != "mlp" else "lru"
        short = short_name(config.env)
        trust = " --trust" if config.own_code else ""
        again = f"memoroids resume {run}{trust}"
        look = (
            f"memoroids evaluate {run} --episodes 100{trust}" if config.seeds == 1 else f"memoroids compare {run}/seed*"
        )
        tries = [again] if outcome.final is None else [look, f"memoroids train --env {short} --memory {other}"]
        for command in tries:
            self.console.print(f"try: {command}", highlight=False, soft_wrap=True, markup=False, emoji=False)


def comparison(runs: Sequence[Path], output: Path | None) -> None:
    """Prints a table of runs, and draws their curves to `output`. Raises `ValueError` where one cannot be read."""
    # Plain columns: a table that breaks its lines to fit a terminal cannot be read or copied.
    line = "{:26}{:19}{:16}{:8}{:>5}  {:24}{:>11}{:>10}{:>9}  {!s}"
    head = (
        "env",
        "memory",
        "batching",
        "preset",
        "seed",
        "final return [95%]",
        "0.95 after",
        "episodes",
        "seconds",
        "run",
    )
    print(line.format(*head))
    curves: dict[str, Sequence[dict[str, float]]] = {}
    for run in runs:
        config, rows = load_config(run), read_rows(run)
        summary = read_summary(run)
        final = "-"
        if summary:
            try:
                low, high = summary["final_interval"]
                final = f"{summary['final_return']:.3f} [{low:.3f}, {high:.3f}]"
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{run / SUMMARY} is not a run's: {one_line(error)}") from error
        short = short_name(config.env)
        reached = episodes_to(rows, 0.95)
        done, seconds = (f"{rows[-1]['episode']:.0f}", f"{rows[-1]['seconds']:.0f}") if rows else ("0", "0")
        batching = batching_of(config)
        settings = (short, config.memory, batching, config.preset, config.seed)
        print(line.format(*settings, final, str(reached or "-"), done, seconds, run))
        label = f"{short} {config.memory} {batching} {config.preset} seed {config.seed}"
        curves[label if label not in curves else f"{label} ({run})"] = rows
    if output is not None:
        draw_comparison(output, curves, "greedy evaluation during training")
        print(f"drawn to {output}")


def listing(what: str) -> None:
    """Prints the environments, memories or presets that can be named."""
    console = Console()
    if what == "envs":
        for name in popgym_ids():
            print(name)
        print("and any Gymnasium id with discrete actions, ALE/Pong-v5 too; short names such as RepeatFirstEasy work")
    elif what == "memories":
        table = Table("name", "model", "sizes")
        for name, factory in REGISTRY.items():
            model, fixed = factory, {}
            if isinstance(factory, partial):
                model, fixed = (factory.args[0] if factory.args else factory.func), factory.keywords
            signature = inspect.signature(model)  # pyright: ignore[reportArgumentType]
            sizes = fixed | {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}
            title = (inspect.getmodule(model).__doc__ or "").splitlines()[0]  # pyright: ignore[reportOptionalMemberAccess]
            table.add_row(name, escape(title), ", ".join(f"{k}={v:.4g}" for k, v in sizes.items()))
        console.print(table)
    else:
        named = [(task, name) for task in TASKS for name in PRESETS if name != "atari"]
        for task, name in [*named, ("any ALE game", "atari")]:
            at = task if task in TASKS else TASKS[0]
            shared = preset(name, at, "")
            print(f"{task} {name}: {_settings(shared)}")
            for memory in REGISTRY:
                own = {k: v for k, v in preset(name, at, memory).items() if shared.get(k) != v}
                if own:
                    print(f"{task} {name}, {memory}: {_settings(own)}")


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{k.removeprefix('dqn.')}={v}" for k, v in values.items())
