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
    untrained: bool = False,
) -> Path:
    """Writes a page with one episode of each run, side by side, and returns its path: look.html in the first run's
    directory, unless `output` is given.

    All play in the environment seed that is chosen by the episodes of the first run. `untrained`: beside each run, also
    what its network did before training. For the rest see `glance`.
    """
    found = [glance(runs[0], which=which, episodes=episodes, seed=seed, best=best)]
    same = found[0]["seed"]
    for number, run in enumerate(runs):
        if number:
            found.append(glance(run, best=best, env_seed=same))
        if untrained:
            found.append(glance(run, untrained=True, env_seed=same))
    output = output or runs[0] / "look.html"
    atomic_write_text(output, page("look_page", found))
    return output
