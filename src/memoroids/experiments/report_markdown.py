"""Tables of results in markdown."""

from collections.abc import Sequence

from memoroids.experiments.results import Results
from memoroids.experiments.tables import Row


def closing(found: Results) -> list[str]:
    """The last lines of a page: what is missing and why, the command, and what the runs were made with."""
    lines = [f"- {gap.cell.name}: {gap.reason}" for gap in found.gaps] + [""] * bool(found.gaps)
    lines += ["Made by", "", f"    {found.grid['command']}", ""]
    made = [dict(each) for each in dict.fromkeys(tuple(run.environment.items()) for run in found.runs)]
    if len(made) > 1:
        lines += [f"These runs come from {len(made)} different versions or machines.", ""]
    for one in made:
        lines += [f"- {name}: {value}" for name, value in one.items()] + [""]
    return lines


def markdown(table: Sequence[Row]) -> str:
    """Rows as a table in markdown; the columns "x low" and "x high" stand in brackets behind "x"."""
    names = [name for name in table[0] if not name.endswith((" low", " high"))]
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for row in table:
        cells = [_number(row[name]) for name in names]
        for i, name in enumerate(names):
            low, high = (row.get(f"{name} {end}", "") for end in ("low", "high"))
            if low == low and low != high:  # an interval over one seed is not a number
                cells[i] += f" [{_number(low)}, {_number(high)}]"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    if float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{round(value, 2) + 0.0:.2f}"  # without the sign of a number that is rounded to 0
