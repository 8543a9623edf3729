"""`memoroids record`: episodes of a trained agent as a GIF, an MP4, or text."""

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from memoroids._util.files import atomic_write, atomic_write_text
from memoroids.runs.load import load_acting
from memoroids.runs.seeds import REPORT, environment_seeds
from memoroids.runs.trained_agent import TrainedAgent
from memoroids.viewing.stage import play, stage_of

Which = Literal["best", "worst", "median"]
"""Which of several episodes is recorded, by its return."""
VIDEO = ("imageio", "imageio_ffmpeg")
"""The packages that an MP4 needs."""
KINDS = (".gif", ".mp4", ".txt")
"""The endings of a recording's name."""
MOST_FRAMES = 3_000
"""Frames in one recording; the rest of a longer episode is left out."""


class Recorded(NamedTuple):
    """What was recorded: the file, the seed and the return of its episode, and the returns of all that were played."""

    path: Path
    seed: int
    total: float
    returns: np.ndarray


def record(
    run_dir: Path,
    output: Path | None = None,
    *,
    which: Which = "best",
    episodes: int = 10,
    seed: int = 0,
    best: bool = False,
) -> Recorded:
    """Plays `episodes` greedy episodes on fresh seeds, and records the `which` of them, played again from its seed.

    `output`: a new file that ends with .gif, .mp4 or .txt; by default recorded-WHICH.gif in the run's directory, or
    .txt if the environment has no pictures. `best`: the parameters of the best evaluation instead of the newest.

    Raises `ValueError` if `output` exists, has another ending, or asks for pictures that there are none of, and if the
    run cannot be read; `CheckpointError` if it has no such parameters.
    """
    if output is not None and output.suffix not in KINDS:
        raise ValueError(f"cannot record to {output}: its name must end with one of {', '.join(KINDS)}")
    if output is not None and output.suffix == ".mp4" and not all(map(importlib.util.find_spec, VIDEO)):
        raise ValueError("an MP4 needs imageio: pip install 'memoroids[video]', or record a .gif")
    config, parts, params = load_acting(run_dir, best=best)
    agent = TrainedAgent(parts, params)
    stage = stage_of(config, pictures=output is None or output.suffix != ".txt")
    try:
        output = output or run_dir / f"recorded-{which}{'.gif' if stage.pictures else '.txt'}"
        if output.exists():
            raise ValueError(f"{output} exists: choose another --output")
        if output.suffix != ".txt" and not stage.pictures:
            raise ValueError(f"{config.env.id} renders no pictures: record to a .txt")
        seed_of = environment_seeds(config.seed, REPORT, seed)
        returns = np.asarray([play(agent, stage, seed_of(number))[0] for number in range(episodes)])
        chosen = seed_of(chosen_number(returns, which))
        frames: list[Any] = []
        captions: list[str] = []

        def shown(total: float, step: int) -> None:
            if len(frames) < MOST_FRAMES:
                frames.append(stage.frame())
                captions.append(f"step {step}   return {total:.3g}   seed {chosen}")

        total, _ = play(agent, stage, chosen, shown)
        _write(output, frames, captions, stage.frames_per_second)
    finally:
        stage.close()
    return Recorded(output, chosen, total, returns)


def chosen_number(returns: np.ndarray, which: Which) -> int:
    """The number of the best or worst episode, or of the one in the middle."""
    order = np.argsort(returns, kind="stable")
    return int(order[{"worst": 0, "median": len(order) // 2, "best": -1}[which]])


def _write(path: Path, frames: Sequence[Any], captions: Sequence[str], frames_per_second: float) -> None:
    if path.suffix == ".txt":
        lines = (f"{caption}: {frame}" for caption, frame in zip(captions, frames, strict=True))
        atomic_write_text(path, "\n".join(lines) + "\n")
        return
    pictures = [_captioned(frame, caption) for frame, caption in zip(frames, captions, strict=True)]
    with atomic_write(path) as partial:
        if path.suffix == ".gif":
            # Viewers slow down what is faster than 50 pictures a second.
            duration = max(20, round(1000 / frames_per_second))
            pictures[0].save(
                partial, format="GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0
            )
            return
        import imageio.v3 as iio  # pyright: ignore[reportMissingImports]  # an extra

        arrays = np.stack([np.asarray(picture) for picture in pictures])
        with warnings.catch_warnings():
            # ffmpeg is started by a fork that runs nothing of this process.
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
            iio.imwrite(partial, arrays, extension=".mp4", fps=frames_per_second, macro_block_size=2)


def _captioned(frame: np.ndarray, caption: str) -> Any:
    """The picture, at least 240 pixels wide, above a line of text."""
    from PIL import Image, ImageDraw  # slow to import; Matplotlib depends on it

    picture = Image.fromarray(frame)
    scale = max(1, -(-240 // picture.width))
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    whole = Image.new("RGB", (picture.width + picture.width % 2, picture.height + 16 + picture.height % 2), "white")
    whole.paste(picture, (0, 0))
    ImageDraw.Draw(whole).text((4, picture.height + 2), caption, fill="black")
    return whole
