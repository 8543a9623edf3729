"""`memoroids look`: a page that shows what an agent's memory does in an episode, in one file without addresses."""

import json
from collections.abc import Sequence
from pathlib import Path

from memoroids._util.files import atomic_write_text
from memoroids.viewing.glance import glance
from memoroids.viewing.recording import Which

PAGE = Path(__file__).with_name("look_page.html")


def look(
    runs: Sequence[Path],
    output: Path | None = None,
    *,
    which: Which = "best",
    episodes: int = 10,
    seed: int = 0,
    best: bool = False,
) -> Path:
    """Writes a page with one episode of each run, side by side, and returns its path: look.html in the first run's
    directory, unless `output` is given. For the rest see `glance`.
    """
    found = [glance(run, which=which, episodes=episodes, seed=seed, best=best) for run in runs]
    # So that no text within the data can end the script that holds it.
    data = json.dumps(found, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    output = output or runs[0] / "look.html"
    atomic_write_text(output, PAGE.read_text().replace("__DATA__", data))
    return output
