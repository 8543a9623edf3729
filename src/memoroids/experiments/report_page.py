"""The page of a grid's report: claims, figures, tables and settings as HTML."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memoroids.envs import DEVICE_PREFIX
from memoroids.experiments.figure_grids import FILES, PUBLISHED, figure3_task, figure_grid
from memoroids.experiments.grid_file import NAME as GRID
from memoroids.experiments.popgym import SOURCES
from memoroids.experiments.report_html import document, escape, interval, number, picture, table
from memoroids.experiments.results import Results
from memoroids.experiments.tables import Row
from memoroids.runs.settings import flat

_BATCHING = """
<p>An agent that observes only part of the state of its environment needs a memory. <em>Recurrent</em> agents learn this
memory from sequences of experience. The common method splits every episode into <strong>segments</strong> of at most L
steps and pads the last one with zeros (Segment-Based Batching, <em>SBB</em>): no gradient reaches back beyond the start
of a segment. The alternative stores whole episodes end to end on a <strong>tape</strong> (Tape-Based Batching,
<em>TBB</em>). Agent, settings and seeds are the same for both. With tapes, a batch of size B consists of whole episodes
with B transitions or slightly more; with segments, as in the paper, of B slots including padding. The table of costs
shows both numbers.</p>
"""
_SCORES = """
<p>How to read the scores: <em>final</em> is the mean return of {way} episodes after training, on environment seeds
that were used for nothing else. <em>Mean</em> is the mean evaluation return over training (the area under the learning
curve); it is high if an agent learns early. <em>Last</em> is the last evaluation. <em>Maximum</em> is the best
evaluation during training; it is selected after the fact and shown only because others report it. Brackets are 95%
bootstrap intervals over seeds; a single seed has none. With few seeds these intervals are too narrow.</p>
"""


def grid_page(found: Results, rows: dict[str, list[Row]], captions: dict[str, str], directory: Path) -> str:
    """The page of a grid as HTML, from its results, its tables by name, and its figures' captions by name.

    The pictures are read from `directory`/figures and become part of the page.
    """
    choice = found.grid["choice"]
    name = choice["figure"]
    told = figure_grid(name) if name in FILES else None
    title, about = (told.title, told.about) if told else (choice["title"], choice["about"])
    published = name in PUBLISHED
    total, done = len(found.grid["cells"]), len(found.runs)
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(about)}</p>"]
    if published or any(flat(cell["config"])["batching"] == "segments" for cell in found.grid["cells"]):
        parts.append(_BATCHING)
    parts.append(_SCORES.format(way=found.way))
    if name == GRID:  # there it says every setting that varies
        shown = ("scores", "cost", "runs")
        rows = rows | {table: [_renamed(row, "batching", "variant") for row in rows[table]] for table in shown}
    source = "" if not published else " of Morad et al. 2024, <em>Recurrent Reinforcement Learning with Memoroids</em>"
    scale = choice.get("scale", "")
    at_scale = f", at scale {escape(scale)}" if scale else ""
    parts.append(f'<p class="note">{escape(name)}{source}{at_scale}: {done} of {total} runs done.</p>')
    if scale == "smoke":
        parts.append(
            '<p class="gap">A smoke run: it checks that every part works, but is too short for learning. Its scores '
            "mean nothing.</p>"
        )
    if found.gaps:
        rest: list[Row] = [
            {name: getattr(gap.cell, name) for name in ("task", "memory", "batching", "seed")} | {"why": gap.reason}
            for gap in found.gaps
        ]
        missing = f"<summary><strong>{len(found.gaps)} runs are missing</strong></summary>{table(rest)}"
        shown = " open" if len(rest) <= MOST_GAPS else ""  # a long list would hide the results below it
        parts.append(f'<div class="gap"><details{shown}>{missing}</details></div>')
    if not found.runs:
        parts.append("<p>No run has finished yet.</p>")
    else:
        parts += [*_scores(rows, captions, directory), *_comparisons(rows, captions, directory)]
        parts += [*_sensitivity(rows, captions, directory), *_cost(rows)]
    parts += _provenance(found)
    return document(f"{name}: {title}", parts)


def _renamed(row: Row, old: str, new: str) -> Row:
    """A row with another name for one of its columns."""
    return {new if name == old else name: value for name, value in row.items()}


def _scores(rows: dict[str, list[Row]], captions: dict[str, str], directory: Path) -> list[str]:
    parts = []
    if claims := _claims(rows):
        parts += ["<h2>The paper's claims, measured</h2>", "<ul>", *claims, "</ul>"]
        parts.append(
            '<p class="note">Confirmed: the 95% interval lies entirely above zero. Contradicted: entirely below zero. '
            "Undecided: it contains zero, or there is no interval.</p>"
        )
    if rows["against_published"]:
        parts += [
            "<h2>Comparison with published scores</h2>",
            "<p>For each task and level, the memory with the best MMER beside the best published score, both means "
            "over runs. <em>MMER</em> is the maximum over training of the mean training return, which is what was "
            "published (PPO, 15 million steps, three runs): it is taken from episodes that explore, and the maximum is "
            "selected after the fact. <em>Final</em> returns are those of the trained agent on fresh seeds. Sources: "
            + "; ".join(f"{key}, {escape(source)}" for key, source in SOURCES.items())
            + ". <em>Reachable</em>: the mean return of a good policy that knows the rules. <em>Bound</em>: no policy "
            "has a higher mean return, though the maximum of several means, as MMER is, may be a little above it.</p>",
            table(rows["against_published"]),
        ]
    if rows["memories"]:
        parts += [
            "<h2>Memories against each other</h2>",
            "<p>Final returns over the tasks that every memory was trained on. The interquartile mean is that of the "
            "middle half of all runs. The tables of all pairs and of the profiles are beside this page.</p>",
            table(rows["memories"]),
            *_figures("profiles", captions, directory),
        ]
    parts += ["<h2>Learning curves</h2>", *_figures("curves", captions, directory)]
    parts += ["<h2>Returns</h2>", table(rows["scores"])]
    if len(rows["aggregate"]) > 1:
        parts += [
            "<h3>Over all pairs of task and memory</h3>",
            "<p>Mean and interquartile mean (the mean of the middle half of all runs) of the area under the learning "
            "curve. Seeds are resampled within each pair.</p>",
            table(rows["aggregate"]),
        ]
    return parts


def _comparisons(rows: dict[str, list[Row]], captions: dict[str, str], directory: Path) -> list[str]:
    parts = []
    if rows["tape_against_segments"]:
        parts += [
            "<h2>Tapes against segments</h2>",
            "<p>Difference of the areas under the learning curve, and the probability that a run with tapes is better "
            "than a run with segments; ties count half. <em>Paired</em>: the mean difference between runs with the "
            "same seed, which share their initial network, random episodes and evaluation seeds.</p>",
            *_figures("comparison", captions, directory),
            table(rows["tape_against_segments"]),
        ]
    if rows["longer_against_shorter"]:
        parts += ["<h2>Longer against shorter segments</h2>", table(rows["longer_against_shorter"])]
    return parts


def _sensitivity(rows: dict[str, list[Row]], captions: dict[str, str], directory: Path) -> list[str]:
    if not rows["sensitivity"]:
        return []
    return [
        "<h2>How far back values depend on observations</h2>",
        "<p>The derivative of the last action's value with respect to every earlier observation. RML: how many "
        "observations back the reward depends on. VML: how many observations back contain half, 95% or 99% of the "
        "value's sensitivity. Beyond L: the share that segments of length L cannot learn.</p>",
        *_figures("sensitivity", captions, directory),
        table(rows["sensitivity"]),
        *_figures("heat", captions, directory),
    ]


def _cost(rows: dict[str, list[Row]]) -> list[str]:
    parts = []
    if rows.get("split"):
        parts += [
            "<h2>Where the time of a training episode goes</h2>",
            "<p>Milliseconds with the paper's settings and one update per episode, each part timed separately: "
            "collecting an episode, storing it (including splitting and padding), sampling a batch, updating on it, "
            "and sampling and updating together in one program, as in training.</p>",
            table(rows["split"]),
        ]
    parts += [
        "<h2>Cost</h2>",
        "<p>Slots of batches include padding and final observations. Seconds are of whole runs including evaluation, "
        "on the machine named below, with several runs at the same time.</p>",
        table(rows["cost"]),
        "<h2>All runs</h2>",
        table(rows["runs"]),
    ]
    return parts


def _claims(rows: dict[str, list[Row]]) -> list[str]:
    """One line for each claim of the paper that these results confirm, contradict or leave undecided."""
    out = []
    for name, sentence in (
        ("tape_against_segments", "Tapes learn faster than segments"),
        ("longer_against_shorter", "Longer segments learn faster than shorter ones"),
    ):
        for row in _overall(rows[name]):
            paired = ""
            if row["paired"] != "":
                between = interval(row["paired low"], row["paired high"])
                paired = f", between runs with the same seed {number(row['paired'])}{between}"
            where = "over all pairs" if row["task"] == "all" else f"{row['task']}, {row['memory']}"
            out.append(
                f"<li>{sentence} ({escape(row['better'])} against {escape(row['than'])}, {escape(where)}): "
                f'<strong class="{row["verdict"]}">{row["verdict"]}</strong>, difference of mean return over training '
                f"{number(row['difference'])}{interval(row['low'], row['high'])}{paired}, probability of improvement "
                f"{number(row['P(improvement)'])}{interval(row['P low'], row['P high'])}.</li>"
            )
    for row in rows["sensitivity"]:
        for name in [key for key in row if key == "beyond RML" or key.startswith("beyond L=")]:
            if name.endswith((" low", " high")) or row[name] in ("", 0.0):
                continue
            if name.startswith("beyond L") and row["batching"].split()[:2] != ["SBB", name.removeprefix("beyond ")]:
                continue
            between = interval(row[f"{name} low"], row[f"{name} high"], percent=True)
            out.append(
                f"<li>{escape(row['task'])}, {escape(row['memory'])}, {escape(row['batching'])}: "
                f"<strong>{row[name]:.0%}</strong>{between} of the value's sensitivity lies {escape(name)}"
                + (" (the paper: about 90%)." if _paper_says_90(row, name) else ".")
                + "</li>"
            )
    return out


def _paper_says_90(row: Row, name: str) -> bool:
    return row["memory"] == "ffm" and name == "beyond L=10" and row["task"] == figure3_task()


def _overall(rows: Sequence[Row]) -> list[Row]:
    """For each comparison the row over all pairs of task and memory, or that of its only pair."""
    several = {(row["better"], row["than"]) for row in rows if row["task"] == "all"}
    return [row for row in rows if row["task"] == "all" or (row["better"], row["than"]) not in several]


MOST_GAPS = 12
"""The most missing runs that a page lists at once."""
_VARIED = ("version", "seed", "run_dir", "env", "memory", "batching")
"""Settings that differ between the runs of one task and memory, or are shown elsewhere on the page."""
_DEVICE = ("rollout", "tapes", "seeds", "mapping", "devices", "prioritised")
"""Settings that only device environments have."""


def _provenance(found: Results) -> list[str]:
    cells = found.grid["cells"]
    parts = ["<h2>How this was made</h2>", f"<pre>{escape(found.grid['command'])}</pre>"]
    made = list({json.dumps(run.environment): run.environment for run in found.runs}.values())
    if len(made) > 1:
        parts.append(f'<p class="gap">These runs come from {len(made)} different versions or machines.</p>')
    for one in made:
        parts.append(table([{"what": name, "value": value} for name, value in one.items()]))
    parts.append(
        "<h3>Settings</h3><p>Shared by all runs of a task and memory. Seeds, segment lengths and the changes of "
        "ablations are in the tables.</p>"
    )
    shown: dict[str, dict[str, Any]] = {}
    for cell in cells:
        label = f"{cell['task']}, {cell['memory']}"
        config = flat(cell["config"])
        values = {k: v for k, v in config.items() if k not in _VARIED and not k.startswith(("segment_", "priority."))}
        if not config["env"].startswith(DEVICE_PREFIX):
            values = {k: v for k, v in values.items() if k not in _DEVICE}
        if config["steps"] is None:
            del values["steps"]
        shown.setdefault(label, values)
        if config["batching"] == "segments":
            shown[label] |= {k: config[k] for k in ("segment_state", "segment_count")}
    names = list(dict.fromkeys(name for values in shown.values() for name in values))
    differing = [name for name in names if len({json.dumps(values.get(name)) for values in shown.values()}) > 1]
    same = {name: next(iter(shown.values()))[name] for name in names if name not in differing}
    if differing:
        different = {label: {n: _setting_text(v.get(n)) for n in differing} for label, v in shown.items()}
        parts.append(table([{"": label} | values for label, values in different.items()]))
    common = ", ".join(f"{name} {_setting_text(value)}" for name, value in same.items())
    parts.append(f'<p class="note">Common to all runs: {escape(common)}.</p>')
    parts.append(
        '<p class="note">Beside this page are the figures as PNG and PDF (figures/) and the tables as CSV '
        "(tables/).</p>"
    )
    return parts


def _setting_text(value: Any) -> str:
    """A setting as text; - if it is not set."""
    if isinstance(value, dict):
        return " ".join(f"{k} {v}" for k, v in value.items()) or "-"
    return "-" if value is None else str(value)


def _figures(kind: str, captions: dict[str, str], directory: Path) -> list[str]:
    """The figures whose names start with `kind`."""
    names = [name for name in captions if name.startswith(kind)]
    return [picture(directory / "figures" / f"{name}.png", captions[name]) for name in names]
