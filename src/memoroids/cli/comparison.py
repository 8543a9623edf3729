"""The comparison of runs: the settings that differ, and means over the seeds of runs that differ in nothing else."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from memoroids._util.messages import one_line
from memoroids.cli.run_names import batching_of
from memoroids.envs import short_name
from memoroids.runs.metrics import mean_rows
from memoroids.runs.plots import draw_comparison
from memoroids.runs.progress import episodes_to
from memoroids.runs.run_directory import CONFIG, SUMMARY, load_config, read_rows, read_summary
from memoroids.runs.settings import TrainConfig, flat
from memoroids.runs.several_seeds import seed_dirs

OPTIONAL = {"env_options": "env", "memory_sizes": "memory"}
"""Settings that are dictionaries, in which a name may be missing, and the setting that determines these names."""


class Run(NamedTuple):
    """A run of one seed."""

    path: Path
    source: Path
    """The directory that was named: `path`, or that of the run of several seeds to which it belongs."""
    config: TrainConfig
    rows: list[dict[str, float]]
    final: tuple[float, float, float] | None
    """The mean return of the final evaluation and its interval; None for an unfinished run."""


class Group(NamedTuple):
    """Runs that differ in their seed only."""

    settings: dict[str, Any]
    """What they have in common: option → value."""
    runs: list[Run]

    @property
    def curves(self) -> list[list[dict[str, float]]]:
        """The rows of those runs that have any."""
        return [run.rows for run in self.runs if run.rows]


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Reads runs; one of several seeds becomes a run for each of its seeds that has begun.

    A run that is named twice is read once. Raises `ValueError` naming the file of a run that cannot be read.
    """
    found: dict[Path, Run] = {}
    for source in paths:
        config, own = load_config(source), [source]
        if several := seed_dirs(config, source):
            own = [path for path in several if (path / CONFIG).exists()]
            if not own:
                raise ValueError(f"{source} holds no metrics: none of its {len(several)} seeds has begun")
        for path in own:
            found.setdefault(path.resolve(), Run(path, source, load_config(path), read_rows(path), _final(path)))
    return list(found.values())


def _final(run: Path) -> tuple[float, float, float] | None:
    summary = read_summary(run)
    if not summary:
        return None
    try:
        low, high = summary["final_interval"]
        return float(summary["final_return"]), float(low), float(high)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run / SUMMARY} is not the summary of a run: {one_line(error)}") from error


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Runs in groups that differ in their seed only; a second run with one seed begins another group."""
    groups: dict[tuple[str, int], Group] = {}
    for run in runs:
        settings = _settings(run.config)
        number, key = 0, json.dumps(settings, sort_keys=True, default=str)
        while (key, number) in groups and any(run.config.seed == each.config.seed for each in groups[key, number].runs):
            number += 1
        groups.setdefault((key, number), Group(settings, [])).runs.append(run)
    return list(groups.values())


def _settings(config: TrainConfig) -> dict[str, Any]:
    """The settings by option, without the seed and the run directory; those of a dictionary one by one."""
    found = {}
    for name, value in flat(asdict(config)).items():
        if name in OPTIONAL:
            found |= {f"{name}.{inner}": each for inner, each in value.items()}
        elif name not in ("seed", "run_dir"):
            found[name] = value
    return found


def differing(groups: Sequence[Group]) -> list[str]:
    """The settings that differ between groups.

    A setting that only some have, as those of one algorithm among several, differs if it does between these.
    """
    names = dict.fromkeys(name for group in groups for name in group.settings)
    return [name for name in names if _differs(name, groups)]


def _differs(name: str, groups: Sequence[Group]) -> bool:
    values = {json.dumps(group.settings[name], default=str) for group in groups if name in group.settings}
    owner = OPTIONAL.get(name.partition(".")[0])
    if len(values) > 1 or owner is None:
        return len(values) > 1
    # Where one memory, or environment, is given a value and elsewhere is not, it has its default there.
    given = {(group.settings[owner], name in group.settings) for group in groups}
    return len(given) > len({which for which, _ in given})


def telling(groups: Sequence[Group]) -> list[str]:
    """The first of the settings that differ which tell apart all groups that any settings tell apart.

    Settings often differ together, as those of a preset for another memory; the first of them says enough.
    """
    chosen: list[str] = []
    for name in differing(groups):
        if _kinds(groups, [*chosen, name]) > _kinds(groups, chosen):
            chosen.append(name)
    return chosen


def _kinds(groups: Sequence[Group], names: list[str]) -> int:
    """How many groups these settings tell apart."""
    return len({json.dumps([group.settings.get(name) for name in names], default=str) for group in groups})


def labels(groups: Sequence[Group]) -> list[str]:
    """A label for each group, made of what tells it apart: settings, seed or number of seeds, or else its directory."""
    names, found = telling(groups), []
    seeds = {run.config.seed for group in groups for run in group.runs}
    counts = {len(group.runs) for group in groups}
    for group in groups:
        parts = [_described(name, group.settings[name]) for name in names if name in group.settings]
        if len(group.runs) > 1 and (len(counts) > 1 or not parts):
            parts.append(f"{len(group.runs)} seeds")
        elif len(group.runs) == 1 and (len(seeds) > 1 or not parts):
            parts.append(f"seed {group.runs[0].config.seed}")
        found.append(", ".join(parts))
    many = Counter(found)
    return [
        f"{label} ({group.runs[0].source})" if many[label] > 1 else label
        for label, group in zip(found, groups, strict=True)
    ]


def _described(name: str, value: Any) -> str:
    """A setting in a label; words such as lru or segments speak for themselves."""
    shown = _shown(name, value)
    return shown if isinstance(value, str) else f"{name.removeprefix('memory_sizes.')} {shown}"


def _shown(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return short_name(value) if name == "env" and isinstance(value, str) else str(value)


def heading(groups: Sequence[Group]) -> str:
    """What all groups train, as far as it is the same: environment, memory and batching."""
    configs = [group.runs[0].config for group in groups]
    every = (
        {short_name(config.env.id) for config in configs},
        {config.network.memory for config in configs},
        {batching_of(config) for config in configs},
    )
    return ", ".join(value for values in every if len(values) == 1 for value in values)


def table(groups: Sequence[Group]) -> list[str]:
    """The lines of the table: a line for each run, and the mean over seeds after each group that has several.

    The settings in it are those that tell groups apart; `further` has the others that differ.
    """
    names = telling(groups)
    runs = [run for group in groups for run in group.runs]
    with_seed = len({run.config.seed for run in runs}) > 1
    aimed = any(run.config.evaluation.target_return is not None for run in runs)

    def cells(group: Group, seed: str, final: str, rows: list[dict[str, float]], where: str) -> list[str]:
        shown = [_cell(group, name) for name in names]
        reached = episodes_to(rows, group.runs[0].config.evaluation.target_return)
        done = [f"{rows[-1][name]:.0f}" if rows else "0" for name in ("episode", "seconds")]
        return [*shown, *([seed] * with_seed), final, *([str(reached or "-")] * aimed), *done, where]

    lines = [[*names, *["seed"] * with_seed, "final return [95%]", *["target after"] * aimed]]
    lines[0] += ["episodes", "seconds", "run"]
    for group in groups:
        for run in group.runs:
            final = "-" if run.final is None else "{:.3f} [{:.3f}, {:.3f}]".format(*run.final)
            lines.append(cells(group, str(run.config.seed), final, run.rows, str(run.path)))
        if len(group.runs) > 1:
            sources = {run.source for run in group.runs}
            where = str(sources.pop()) if len(sources) == 1 else ""
            lines.append(cells(group, f"mean of {len(group.runs)}", _mean_final(group), mean_rows(group.curves), where))
    return _aligned(lines)


def further(groups: Sequence[Group]) -> list[str]:
    """The lines of a table of the settings that differ besides those in `table`, a line each; none if there is none."""
    names = [name for name in differing(groups) if name not in telling(groups)]
    rows = [[name, *(_cell(group, name) for group in groups)] for name in names]
    return _aligned([["differs too", *labels(groups)], *rows]) if rows else []


def _cell(group: Group, name: str) -> str:
    return _shown(name, group.settings[name]) if name in group.settings else "-"


def _aligned(lines: list[list[str]]) -> list[str]:
    """Plain columns: a table whose cells wrap at the terminal's width cannot be read or copied."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _mean_final(group: Group) -> str:
    """The mean and standard deviation over seeds of the final returns, and how many there are if not all."""
    finals = [run.final[0] for run in group.runs if run.final is not None]
    if not finals:
        return "-"
    spread = f" ± {stdev(finals):.3f}" if len(finals) > 1 else ""
    return f"{fmean(finals):.3f}{spread}" + f" ({len(finals)} finished)" * (len(finals) < len(group.runs))


def print_comparison(paths: Sequence[Path], output: Path | None) -> None:
    """Prints the table of runs, and draws their learning curves to `output`.

    Raises `ValueError` naming the file of a run that cannot be read.
    """
    groups = grouped(read_runs(paths))
    several = any(len(group.runs) > 1 for group in groups)
    title = heading(groups)
    for line in (*([title] if title else []), *table(groups)):
        print(line)
    if several:
        print("means are over seeds: final return ± standard deviation")
    if more := further(groups):
        print("\n".join(["", *more]))
    if output is not None:
        ways = dict.fromkeys(run.config.evaluation.way for group in groups for run in group.runs)
        what = f"return of {' or '.join(ways)} episodes"
        what += "\nmean ± standard deviation over seeds" if several else ""
        curves = {label: group.curves for label, group in zip(labels(groups), groups, strict=True)}
        draw_comparison(output, curves, title or "evaluation during training", what)
        print(f"drawn to {output}")
