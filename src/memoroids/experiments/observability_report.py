"""The table of an environment and its twin: what is hidden, what a memory gives back, and what it costs."""

from pathlib import Path

import numpy as np

from memoroids.experiments import statistics
from memoroids.experiments.observability import PARTIAL, TWIN, WITHOUT
from memoroids.experiments.report_markdown import closing, markdown
from memoroids.experiments.results import Results
from memoroids.experiments.tables import Row, blank, with_interval
from memoroids.experiments.tables import write as write_csv

CSV, PAGE = "gap.csv", "gap.md"
_ABOUT = """\
Agents were trained on `{partial}`, and on `{twin}`, which hides nothing. *Partial* and *twin* are the mean final
returns there, of the last parameters on environment seeds used for nothing else. The *observability gap* is twin -
partial: what the agent loses because something is hidden, its memory notwithstanding. The *memory bias* is the twin's
return without a memory minus that with it: what the memory costs where none is needed. *Worth* is the return with the
memory minus that without one where something is hidden. Brackets are 95% bootstrap intervals over seeds; one seed and
equal returns have none. The first two measures follow POPGym Arcade (Wang et al. 2025).
"""


def write(found: Results, directory: Path) -> Path:
    """Writes `directory`/gap.csv and gap.md from a grid, finished or not. Returns the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    table = rows(found)
    write_csv(table, directory / CSV)
    cells = found.grid["cells"]
    envs = {cell["task"]: cell["config"]["env"]["id"] for cell in cells}
    lines = [f"# {envs[PARTIAL]} and {envs[TWIN]}", "", f"{len(found.runs)} of {len(cells)} runs done.", ""]
    lines += [_ABOUT.format(**envs)]
    lines += [markdown(table)] if table else []
    lines += closing(found)
    page = directory / PAGE
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def rows(found: Results) -> list[Row]:
    """A row for each memory, and one for agents without: returns, and their differences with intervals over seeds.

    What cannot be computed yet is empty.
    """
    returns = {
        (task, memory): np.asarray([run.summary["final_return"] for run in runs])
        for (task, memory, _), runs in found.groups().items()
    }
    steps = {run.cell.memory: int(run.rows[-1]["env_steps"]) for run in found.runs}
    table = []
    for memory in dict.fromkeys(cell["memory"] for cell in found.grid["cells"]):
        partial, twin = (returns.get((task, memory)) for task in (PARTIAL, TWIN))
        plain_partial, plain_twin = (returns.get((task, WITHOUT)) for task in (PARTIAL, TWIN))
        sides = (partial, twin, plain_partial, plain_twin)
        row: Row = {"memory": memory, "seeds": min(0 if side is None else len(side) for side in sides)}
        row |= {"steps": steps.get(memory, "")}
        for name, side in ((PARTIAL, partial), (TWIN, twin)):
            row |= blank(name) if side is None else with_interval(name, side)
        row |= _difference("observability gap", twin, partial)
        row |= _difference("memory bias", None if memory == WITHOUT else plain_twin, twin)
        row |= _difference("worth", None if memory == WITHOUT else partial, plain_partial)
        table.append(row)
    return table


def _difference(name: str, more: np.ndarray | None, less: np.ndarray | None) -> Row:
    if more is None or less is None:
        return blank(name)
    low, high = statistics.difference_interval(statistics.mean, [more], [less])
    return {name: float(np.mean(more) - np.mean(less)), f"{name} low": low, f"{name} high": high}
