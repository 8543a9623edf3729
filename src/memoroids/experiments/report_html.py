"""The HTML elements of a report: documents, tables, pictures and numbers, as strings."""

import base64
import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def document(title: str, parts: Sequence[str]) -> str:
    """A self-contained HTML document of these parts; `title` is plain text."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        + "\n".join(parts)
        + "</body></html>\n"
    )


def picture(path: Path, caption: str) -> str:
    """A PNG file, embedded, with its caption in plain text."""
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as an HTML table; a value and the two ends of its interval share one column."""
    if not rows:
        return "<p class='note'>no data yet</p>"
    names = [name for name in rows[0] if not name.endswith((" low", " high")) and name not in ("low", "high")]
    numeric = {name for name in names if all(not isinstance(row[name], str) or row[name] == "" for row in rows)}
    head = "".join(f"<th{_class(name, numeric)}>{escape(name)}</th>" for name in names)
    lines = []
    for row in rows:
        cells = []
        for name in names:
            value = number(row[name]) if not isinstance(row[name], str) else escape(row[name])
            prefix = {"difference": "", "P(improvement)": "P "}.get(name, f"{name} ")
            low, high = row.get(f"{prefix}low"), row.get(f"{prefix}high")
            if low not in (None, "") and row[name] != "":
                value += interval(low, high)
            cells.append(f"<td{_class(name, numeric)}>{value}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _class(name: str, numeric: set[str]) -> str:
    return "" if name in numeric else ' class="text"'


def interval(low: float | None, high: float | None, *, percent: bool = False) -> str:
    """The text of an interval that follows its number; empty if there is none."""
    if low is None or high is None or math.isnan(low):
        return ""
    return f" [{low:.0%}, {high:.0%}]" if percent else f" [{number(low)}, {number(high)}]"


def number(value: Any) -> str:
    """A number with a sensible number of digits, or text, escaped; empty for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{int(value):,}" if isinstance(value, int | float) else escape(str(value))


def escape(value: object) -> str:
    """`value` as text that is safe within HTML."""
    return html.escape(str(value))
