"""Tables of results in markdown."""

from collections.abc import Sequence

from memoroids.experiments.tables import Row


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
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:.2f}"
