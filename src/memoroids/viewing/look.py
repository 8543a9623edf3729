"""`memoroids look`: a page that shows what an agent's memory does in an episode, in one file without addresses."""

from collections.abc import Sequence
from pathlib import Path

from memoroids._util.files import atomic_write_text
from memoroids.viewing.glance import glance
from memoroids.viewing.pages import page
from memoroids.viewing.recording import Which


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
    output = output or runs[0] / "look.html"
    atomic_write_text(output, page("look_page", found))
    return output
