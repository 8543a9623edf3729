"""What the terminal shows of a run: live progress while it trains, then a table of its results."""

import json
import math
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table
from rich.text import Text

from memoroids._util.clock import clock
from memoroids._util.imports import importable
from memoroids.cli.interrupts import answered
from memoroids.cli.run_names import batching_of
from memoroids.envs import is_popgym, short_name
from memoroids.runs.check_up import examined
from memoroids.runs.progress import Outcome, Progress, Watch, episodes_to
from memoroids.runs.run_directory import CURVE, METRICS
from memoroids.runs.settings import TrainConfig


class _Figures(ProgressColumn):
    def render(self, task: Task) -> Text:
        """The task's figures as plain text, in which rich finds no markup."""
        return Text(task.fields["figures"])


class ProgressDisplay:
    """A live progress bar on a terminal; elsewhere a plain line every five seconds or more."""

    def __init__(self, config: TrainConfig, run_dir: Path, *, resume: bool):
        self.config = config
        self.console = Console()
        self.banner: str | None = _banner(config, run_dir, resume=resume)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=18), _Figures())
        self.bar = ProgressBar(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("random", total=max(config.budget.random_episodes, 1), figures="")
        self.printed = -math.inf

    def __enter__(self) -> "ProgressDisplay":
        self.bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.stop()

    def show(self, moment: Progress) -> None:
        """Shows where the run is; the first call prints what is being trained."""
        if self.banner is not None:
            self.console.print(self.banner, highlight=False, soft_wrap=True, markup=False)
            self.banner = None
        phase, done, total, figures = _describe(self.config, moment)
        if self.console.is_terminal:
            self.bar.update(self.task, description=phase, completed=done, total=max(total, 1), figures=figures)
        elif time.monotonic() - self.printed >= 5 or done >= total:
            self.printed = time.monotonic()
            print(f"{phase}: {figures}", flush=True)

    def conclude(self, outcome: Outcome, seconds: float, *, hints: bool = True) -> None:
        """Prints the table of results and, as `hints`, commands to try; `seconds` is how long training took."""
        self.console.print(_results(outcome, seconds))
        for line in (*_fallen(outcome), *_found(outcome)):
            self.console.print(line, highlight=False, soft_wrap=True, markup=False, emoji=False)
        for command in _next_commands(self.config, outcome) if hints else ():
            self.console.print(f"try: {command}", highlight=False, soft_wrap=True, markup=False, emoji=False)


@contextmanager
def displayed(
    config: TrainConfig, run_dir: Path, *, resume: bool, hints: bool = True
) -> Iterator[tuple[Watch, Callable[[Outcome], None]]]:
    """While a run trains, answers Ctrl-C; yields what shows its progress, and what shows its results afterwards.

    `hints`: see `ProgressDisplay.conclude`.
    """
    begun = time.perf_counter()
    waits_for = "the compiled call ends" if config.env.on_device else "the episodes and updates in progress end"
    with ProgressDisplay(config, run_dir, resume=resume) as display, answered(waits_for):
        yield display.show, lambda outcome: display.conclude(outcome, time.perf_counter() - begun, hints=hints)


def _banner(config: TrainConfig, run_dir: Path, *, resume: bool) -> str:
    verb = "resuming" if resume else "training"
    seeds = f"seed {config.seed}"
    if config.placement.seeds > 1:
        seeds = f"seeds {config.seed} to {config.seed + config.placement.seeds - 1}"
    random = f"{config.budget.random_episodes} random and " if config.budget.random_episodes else ""
    until = f"{config.budget.train_episodes} training episodes"
    if (last := config.budget.last_step) is not None:
        default = " (--steps changes this)" if config.budget.steps is None else ""
        until = f"training to {last:,} environment steps{default}"
    what = f"{config.network.memory} on {config.env.id}, {batching_of(config)}"
    lines = [f"{verb} {what}, {seeds}: {random}{until} -> {run_dir}"]
    for name in ("env_options", "memory_sizes"):
        if given := config.get(name):
            lines.append(f"{name}: {', '.join(f'{each}={value!r}' for each, value in given.items())}")
    return "\n".join(lines)


def _describe(config: TrainConfig, moment: Progress) -> tuple[str, int, int, str]:
    """The phase of a run, how much of it is done, of what total, and the figures to show."""
    counters, row = moment.counters, moment.row
    if counters.random < config.budget.random_episodes:
        phase, done, total = "random", counters.random, config.budget.random_episodes
        figures = f"{done}/{total} episodes  {counters.env_steps:,} steps"
    elif row is None:
        phase, done, total = "training", 0, 1
        figures = f"{counters.episode} episodes  {counters.env_steps:,} steps"
    else:
        phase, done, total = "training", counters.episode, config.budget.total
        episodes = f"{done}/{total}"
        if config.budget.last_step is not None:
            done, episodes = counters.env_steps, f"{counters.episode}"
        by_epsilon = config.agent_type().traits.exploration == "epsilon"
        explores = f"ε {row['epsilon']:.2f}  " if by_epsilon else ""
        figures = (
            f"{episodes} episodes  {counters.env_steps:,} steps  {counters.updates:,} updates  "
            f"loss {row['loss']:.2g}  {explores}return {_returns(config, row)}  "
            f"{row['steps_per_s']:,.0f} steps/s  {clock(moment.seconds_left)} left"
        )
    if row is not None and row["skipped"]:
        figures += f"  {row['skipped']:.0f} non-finite updates skipped"
    if moment.config.placement.seeds < config.placement.seeds:  # one seed after the other, each with its own progress
        phase = f"seed {moment.config.seed} {phase}"
    return phase, done, total, figures


def _returns(config: TrainConfig, row: dict[str, float]) -> str:
    """The mean returns of an evaluation, the one that counts first."""
    ways = sorted(("greedy", "sampled"), key=lambda way: way != config.evaluation.way)
    values = {way: row[f"eval_{way}"] for way in ways}
    return ", ".join(f"{value:+.3f} {way}" for way, value in values.items() if not math.isnan(value))


def _results(outcome: Outcome, seconds: float) -> Table:
    run, rows, config = outcome.run_dir, outcome.rows, outcome.config
    table = Table(show_header=False, title="interrupted" if outcome.final is None else "finished")
    for way, final in outcome.finals.named(config.evaluation.stochastic).items() if outcome.finals else ():
        low, high = final.interval()
        count = len(final.returns)
        table.add_row(f"final return, {way}, {count} fresh seeds", f"{final.mean:.3f}  [{low:.3f}, {high:.3f}]")
    if rows:
        returns = [row["eval_return"] for row in rows]
        mean = sum(returns) / len(returns)
        figures = f"last {returns[-1]:.3f}  mean {mean:.3f}  max {max(returns):.3f}"
        table.add_row(f"evaluation return, {config.evaluation.way}", figures)
        if (target := config.evaluation.target_return) is not None:
            reached = episodes_to(rows, target)
            table.add_row(f"{target:g} reached and kept", f"after {reached} training episodes" if reached else "no")
        table.add_row("training episodes", f"{rows[-1]['episode']:,.0f}")
        table.add_row("environment steps", f"{rows[-1]['env_steps']:,.0f}")
        table.add_row("updates", f"{rows[-1]['updates']:,.0f}, {rows[-1]['transitions']:,.0f} transitions")
    table.add_row("time", f"{seconds:.0f} s")
    metrics = run / METRICS if config.placement.seeds == 1 else f"{run}/seed*/{METRICS}"
    table.add_row("written", Text(f"{metrics}, {run / CURVE}"))  # as text, in which rich finds no markup
    return table


def _fallen(outcome: Outcome) -> list[str]:
    """A line for each seed whose last policy is much worse than its best, with the command that evaluates the best."""
    trust, lines = " --trust" if outcome.config.own_code else "", []
    for each in outcome.seeds or (outcome,):
        if (best := each.fallen_from()) is not None and each.final is not None:
            lines.append(
                f"the last policy is much worse than the best: {each.final.mean:.3f} now, {best['eval_return']:.3f} "
                f"after {best['episode']:,.0f} training episodes: "
                f"memoroids evaluate --best {shlex.quote(str(each.run_dir))}{trust}"
            )
    return lines


def _found(outcome: Outcome) -> list[str]:
    """A line that names what `memoroids doctor` finds in the run, in any of its seeds; none if it finds nothing."""
    findings = [found for each in outcome.seeds or (outcome,) for found in examined(each.run_dir)]
    names = dict.fromkeys(finding.name for finding in findings if finding.name != "fallen from its best")
    return [f"found: {', '.join(names)}: memoroids doctor {shlex.quote(str(outcome.run_dir))}"] if names else []


def _next_commands(config: TrainConfig, outcome: Outcome) -> list[str]:
    """Commands worth trying after a run: to resume it, or to look at it and to train something to compare it with."""
    run, trust = str(outcome.run_dir), ["--trust"] * bool(config.own_code)
    if outcome.final is None:
        return [shlex.join(["memoroids", "resume", run, *trust])]
    several = config.placement.seeds > 1
    look = ["compare", run] if several else ["evaluate", run, "--episodes", "100", *trust]
    commands = [look]
    if importable(config.env.device_name) and importable(config.algorithm):
        commands.append(_another(config))
    return [shlex.join(["memoroids", *command]) for command in commands]


def _another(config: TrainConfig) -> list[str]:
    """The command that trains the agent with another memory on the same environment."""
    env = config.env
    words = ["train", "--env", short_name(env.id) if is_popgym(env.id) else env.id]
    words += ["--memory", "mlp" if config.network.memory != "mlp" else "lru"]
    if config.algorithm != type(config).algorithm:
        words += ["--algorithm", config.algorithm]
    if env.options:
        words += ["--env-options", *(word for name, value in env.options.items() for word in (name, json.dumps(value)))]
    return words
