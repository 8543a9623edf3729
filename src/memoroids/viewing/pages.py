"""The HTML pages of this package: each one file, without addresses of anything else."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def page(name: str, data: Any = None) -> str:
    """The page `name`.html with the style and the functions that all share, and with the data that it shows.

    Raises `ValueError` for data that JSON has no words for, such as NaN.
    """
    # So that no text within the data can end the script that holds it, or begin a comment or another script in it.
    written = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    text = (FOLDER / f"{name}.html").read_text()
    for mark, file in (("__STYLE__\n", "page_style.css"), ("__SCRIPT__\n", "page_script.js")):
        text = text.replace(mark, (FOLDER / file).read_text())
    return text.replace("__DATA__", written)
