"""The report of a grid: one self-contained HTML page, with its figures and tables as files beside it."""

import base64
import html
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memoroids._util.provenance import environment
from memoroids.envs import DEVICE_PREFIX
from memoroids.experiments import figures, results, tables
from memoroids.experiments.grid import FIGURES, RML_10
from memoroids.experiments.results import Results
from memoroids.experiments.tables import Row

REPORT = "report"
PAGE = "index.html"
SPLIT = "split.csv"
"""Where a training episode's time goes, measured apart from the grid's runs; not every grid has it."""


def write(root: Path) -> Path:
    """Writes `root`/report: index.html, figures/*.png and *.pdf, tables/*.csv. Returns its page.

    The page of an unfinished grid lists its gaps.

    Raises `ValueError` where `root` holds no grid or one of another version.
    """
    found = results.load(root)
    directory = root / REPORT
    (directory / "tables").mkdir(parents=True, exist_ok=True)
    rows = {name: make(found) for name, make in tables.TABLES.items()}
    if (root / SPLIT).exists():
        rows["split"] = tables.read(root / SPLIT)
    for name, table in rows.items():
        tables.write(table, directory / "tables" / f"{name}.csv")
    captions = figures.draw(found, directory / "figures")
    page = directory / PAGE
    page.write_text(_page(found, rows, captions, directory), encoding="utf-8")
    return page


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.7em; } h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 13px; } .wide { overflow-x: auto; margin: 1em 0; }
th, td { padding: 3px 9px; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { border-bottom: 2px solid #999; } td.text, th.text { text-align: left; }
figure { margin: 1.5em 0; } figure img { max-width: 100%; } figcaption, .note { color: #555; font-size: 14px; }
.confirmed { color: #17692c; } .contradicted { color: #a3170f; } .undecided { color: #6b5900; }
.gap { background: #fff3cd; padding: 0.6em 1em; border-left: 4px solid #d9a400; }
pre { background: #f4f4f4; padding: 0.7em; overflow-x: auto; font-size: 13px; }
"""

_ABOUT = """
<p>An agent that sees only part of its world has to remember. <em>Recurrent</em> agents learn such a memory from whole
streams of experience. The usual way cuts every episode into <strong>segments</strong> of at most L steps and fills the
last one up with zeros (Segment-Based Batching, <em>SBB</em>): what happened before a segment began cannot be learned
from. The alternative lays whole episodes end to end on a <strong>tape</strong> (Tape-Based Batching, <em>TBB</em>).
The agent, the settings and the seeds are the same for both. A batch of B means, on tapes, whole episodes with B steps
or a few more; in segments, as the paper counts, B places, zeros included: the table of costs has both numbers.</p>
<p>Reading the numbers: <em>final</em> is the mean return of greedy episodes after training, on environment seeds that
were used for nothing else. <em>Mean</em> is the mean evaluation return over the whole of training (the area under the
curve): it is high where an agent learns early. <em>Last</em> is the last evaluation. <em>Maximum</em> is the best
evaluation ever seen, picked after the fact and shown only because others report it. Brackets are 95% bootstrap
intervals over seeds; with one seed there is none. An interval over few seeds is narrower than it should be.</p>
"""


def _page(found: Results, rows: dict[str, list[Row]], captions: dict[str, str], directory: Path) -> str:
    choice = found.grid["choice"]
    figure = FIGURES[choice["figure"]]
    total, done = len(found.grid["cells"]), len(found.runs)
    parts = [f"<h1>{_text(figure.title)}</h1>", f"<p>{_text(figure.about)}</p>", _ABOUT]
    source = (
        ""
        if choice["figure"] == "popgym"
        else (" of Morad et al. 2024, <em>Recurrent Reinforcement Learning with Memoroids</em>")
    )
    parts.append(
        f'<p class="note">{_text(choice["figure"])}{source}, at scale {_text(choice["scale"])}: '
        f"{done} of {total} runs done.</p>"
    )
    if choice["scale"] == "smoke":
        parts.append(
            '<p class="gap">A smoke run: every part works, but nothing had time to learn. Conclude nothing from it.</p>'
        )
    if found.gaps:
        rest: list[Row] = [
            {name: getattr(gap.cell, name) for name in ("task", "memory", "batching", "seed")} | {"why": gap.reason}
            for gap in found.gaps
        ]
        parts.append(f'<div class="gap"><p><strong>{len(found.gaps)} runs are missing</strong></p>{_table(rest)}</div>')
    if not found.runs:
        parts.append("<p>Nothing has been run yet, so there is nothing to show.</p>")
    else:
        parts += _body(rows, captions, directory, scale=choice["scale"])
    parts += _setting(found)
    return _html(f"{choice['figure']}: {figure.title}", parts)


def write_returns(root: Path, command: str) -> Path:
    """Writes `root`/index.html from the table and the figure that the benchmark of returns left there; its page."""
    rows = tables.read(root / "returns.csv")
    parts = [
        "<h1>Wall-clock of returns and advantages</h1>",
        "<p>Discounted returns and generalised advantages (GAE) of many episodes of unequal length. As memoroids "
        "they run over one tape of all episodes (sequential and associative: two ways to run the same scan). The "
        "others: one loop over that tape; a loop over time that treats all episodes at once, after they were padded to "
        "the same length, and that padding itself; a loop in Python, episode by episode, which the paper calls the "
        "standard one; and a copy of as many bytes, which nothing can beat. Ratios are to ours; what was too slow is "
        "left out.</p>",
        _picture(root / "returns.png", "Time against the number of episodes, for each maximum length."),
        _table(rows),
        "<h2>How this was made</h2>",
        f"<pre>{_text(command)}</pre>",
        _table([{"what": name, "value": value} for name, value in environment().items()]),
    ]
    page = root / PAGE
    page.write_text(_html("Wall-clock of returns and advantages", parts), encoding="utf-8")
    return page


def _html(title: str, parts: Sequence[str]) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        + "\n".join(parts)
        + "</body></html>\n"
    )


def _body(rows: dict[str, list[Row]], captions: dict[str, str], directory: Path, *, scale: str) -> list[str]:
    parts = []
    if claims := _claims(rows):
        parts += ["<h2>The paper's claims, measured</h2>", "<ul>", *claims, "</ul>"]
        parts.append(
            '<p class="note">Confirmed: the 95% interval lies wholly above zero; contradicted: wholly below; '
            "undecided: it holds zero, or there is none.</p>"
        )
    if rows["against_published"]:
        parts += [
            "<h2>Against what was published</h2>",
            "<p>Of each task and level, the memory with the best mean final return beside "
            "POPGym's best published (the best of 13 memories, PPO, 15 million steps); where there is no number, none "
            "was at hand.</p>",
            _table(rows["against_published"]),
        ]
    curves = [name for name in captions if name.startswith("curves")]
    parts += ["<h2>Learning curves</h2>", *(_figure(name, captions[name], directory) for name in curves)]
    parts += ["<h2>Returns</h2>", _table(rows["scores"])]
    if len(rows["aggregate"]) > 1:
        parts += [
            "<h3>Over all pairs of task and memory</h3>",
            "<p>Mean and interquartile mean (of the middle half of all runs) of the area under the curve; seeds are "
            "resampled within each pair.</p>",
            _table(rows["aggregate"]),
        ]
    if rows["tape_against_segments"]:
        parts += [
            "<h2>Tapes against segments</h2>",
            "<p>Difference of the areas under the curve, and the probability that a run with tapes beats a run with "
            "segments, ties counted half. <em>Paired</em>: the mean difference of runs that share their seed, and with "
            "it their first network, random episodes and evaluation seeds.</p>",
            *(_figure(name, captions[name], directory) for name in captions if name == "comparison"),
            _table(rows["tape_against_segments"]),
        ]
    if rows["longer_against_shorter"]:
        parts += ["<h2>Longer against shorter segments</h2>", _table(rows["longer_against_shorter"])]
    if rows["sensitivity"]:
        parts += [
            "<h2>How far back the values depend on observations</h2>",
            "<p>The derivative of the last action's value with respect to every observation before it. RML: how many "
            "observations back the reward depends on. VML: how far back one has to go for half, 95% or 99% of the "
            "value's sensitivity. What lies beyond L, a segment could not have learned from.</p>",
            *(_figure(name, captions[name], directory) for name in captions if name.startswith("sensitivity")),
            _table(rows["sensitivity"]),
        ]
        heat = [name for name in captions if name.startswith("heat")]
        parts += [_figure(name, captions[name], directory) for name in heat]
    if rows.get("split"):
        parts += [
            "<h2>Where the time of a training episode goes</h2>",
            "<p>Milliseconds with the paper's settings and one update an episode, each part timed alone: collecting an "
            "episode, storing it (with splitting and padding), sampling a batch, updating on it, and sampling and "
            "updating as the one program that training runs.</p>",
            _table(rows["split"]),
        ]
    parts += [
        "<h2>Cost</h2>",
        "<p>Slots are places in batches, padding and final observations counted. Seconds are of whole runs, evaluation "
        "included, on the machine named below with several runs side by side.</p>",
        _table(rows["cost"]),
        "<h2>Every run</h2>",
        _table(rows["runs"]),
    ]
    return parts


def _claims(rows: dict[str, list[Row]]) -> list[str]:
    """One line for each claim that these results speak to."""
    out = []
    for table, sentence in (
        ("tape_against_segments", "Tapes learn faster than segments"),
        ("longer_against_shorter", "Longer segments learn faster than shorter ones"),
    ):
        for row in _overall(rows[table]):
            paired = ""
            if row["paired"] != "":
                between = _interval(row["paired low"], row["paired high"])
                paired = f", between runs of the same seed {_number(row['paired'])}{between}"
            where = "over all pairs" if row["task"] == "all" else f"{row['task']}, {row['memory']}"
            out.append(
                f"<li>{sentence} ({_text(row['better'])} against {_text(row['than'])}, {_text(where)}): "
                f'<strong class="{row["verdict"]}">{row["verdict"]}</strong>, difference of mean return over training '
                f"{_number(row['difference'])}{_interval(row['low'], row['high'])}{paired}, probability of improvement "
                f"{_number(row['P(improvement)'])}{_interval(row['P low'], row['P high'])}.</li>"
            )
    for row in rows["sensitivity"]:
        for name in [key for key in row if key == "beyond RML" or key.startswith("beyond L=")]:
            if name.endswith((" low", " high")) or row[name] in ("", 0.0):
                continue
            if name.startswith("beyond L") and row["batching"].split()[:2] != ["SBB", name.removeprefix("beyond ")]:
                continue
            between = _interval(row[f"{name} low"], row[f"{name} high"], percent=True)
            out.append(
                f"<li>{_text(row['task'])}, {_text(row['memory'])}, {_text(row['batching'])}: "
                f"<strong>{row[name]:.0%}</strong>{between} of the value's sensitivity lies {_text(name)}"
                + (" (the paper: about 90%)." if _paper_says_90(row, name) else ".")
                + "</li>"
            )
    return out


def _paper_says_90(row: Row, name: str) -> bool:
    return row["memory"] == "ffm" and name == "beyond L=10" and row["task"] == RML_10.label


def _overall(table: Sequence[Row]) -> list[Row]:
    """Of each comparison its row over all pairs, or its only pair's."""
    whole = {(row["better"], row["than"]) for row in table if row["task"] == "all"}
    return [row for row in table if row["task"] == "all" or (row["better"], row["than"]) not in whole]


_VARIED = ("version", "seed", "run_dir", "env", "memory", "dqn", "ppo", "pqn", "priority", "batching")
"""Settings in which the runs of one task and memory differ, or that stand elsewhere on the page."""
_DEVICE = ("rollout", "tapes", "seeds", "mapping", "devices", "prioritised")
"""Settings that only device environments have."""


def _setting(found: Results) -> list[str]:
    cells = found.grid["cells"]
    parts = ["<h2>How this was made</h2>", f"<pre>{_text(found.grid['command'])}</pre>"]
    made = list({json.dumps(run.environment): run.environment for run in found.runs}.values())
    if len(made) > 1:
        parts.append(f'<p class="gap">These runs were made with {len(made)} different versions or machines.</p>')
    for one in made:
        parts.append(_table([{"what": name, "value": value} for name, value in one.items()]))
    parts.append(
        "<h3>Settings</h3><p>Shared by all runs of a task and memory; seeds, lengths of segments and what an ablation "
        "changes are in the tables.</p>"
    )
    shown: dict[str, dict[str, Any]] = {}
    for cell in cells:
        label = f"{cell['task']}, {cell['memory']}"
        config = cell["config"]
        values = {k: v for k, v in config.items() if k not in _VARIED and not k.startswith("segment_")}
        if not config["env"].startswith(DEVICE_PREFIX):
            values = {k: v for k, v in values.items() if k not in _DEVICE}
        if config["train_steps"] is None:
            del values["train_steps"]
        shown.setdefault(label, values | config[config["algorithm"]])
        if cell["config"]["batching"] == "segments":
            shown[label] |= {k: cell["config"][k] for k in ("segment_state", "segment_count")}
    names = list(dict.fromkeys(name for values in shown.values() for name in values))
    differing = [name for name in names if len({json.dumps(values.get(name)) for values in shown.values()}) > 1]
    same = {name: next(iter(shown.values()))[name] for name in names if name not in differing}
    if differing:
        parts.append(_table([{"": label} | {n: _plain(v.get(n)) for n in differing} for label, v in shown.items()]))
    parts.append(
        f"<p class='note'>The same in all: {_text(', '.join(f'{k} {_plain(v)}' for k, v in same.items()))}.</p>"
    )
    parts.append(
        '<p class="note">The figures are beside this page as PNG and PDF (figures/), the tables as CSV (tables/).</p>'
    )
    return parts


def _figure(name: str, caption: str, directory: Path) -> str:
    return _picture(directory / "figures" / f"{name}.png", caption)


def _picture(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{_text(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _table(rows: Sequence[Row]) -> str:
    """Rows as an HTML table; a column with its interval's two ends becomes one."""
    if not rows:
        return "<p class='note'>nothing to show yet</p>"
    names = [name for name in rows[0] if not name.endswith((" low", " high")) and name not in ("low", "high")]
    numeric = {name for name in names if all(not isinstance(row[name], str) or row[name] == "" for row in rows)}
    head = "".join(f"<th{_class(name, numeric)}>{_text(name)}</th>" for name in names)
    lines = []
    for row in rows:
        cells = []
        for name in names:
            value = _number(row[name]) if not isinstance(row[name], str) else _text(row[name])
            prefix = {"difference": "", "P(improvement)": "P "}.get(name, f"{name} ")
            low, high = row.get(f"{prefix}low"), row.get(f"{prefix}high")
            if low not in (None, "") and row[name] != "":
                value += _interval(low, high)
            cells.append(f"<td{_class(name, numeric)}>{value}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _class(name: str, numeric: set[str]) -> str:
    return "" if name in numeric else ' class="text"'


def _interval(low: float | None, high: float | None, *, percent: bool = False) -> str:
    """An interval behind its number; nothing where there is none."""
    if low is None or high is None or math.isnan(low):
        return ""
    return f" [{low:.0%}, {high:.0%}]" if percent else f" [{_number(low)}, {_number(high)}]"


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{int(value):,}" if isinstance(value, int | float) else _text(str(value))


def _plain(value: Any) -> str:
    """A setting; - where it is not set."""
    if isinstance(value, dict):
        return " ".join(f"{k} {v}" for k, v in value.items()) or "-"
    return "-" if value is None else str(value)


def _text(value: object) -> str:
    return html.escape(str(value))
