"""Measures how far back a run's values depend on observations (Morad et al. 2024, Figures 3 and 8)."""

import csv
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from memoroids.agents.agent_registry import REGISTRY
from memoroids.agents.branches import value_of
from memoroids.analysis.sensitivity import Profile, reward_memory_length, sensitivities, share_beyond, vml
from memoroids.envs import short_name
from memoroids.runs.load import load
from memoroids.runs.plots import draw_profiles
from memoroids.runs.presets import SEGMENT_LENGTHS
from memoroids.runs.seeds import REPORT, environment_seeds
from memoroids.runs.settings import TrainConfig

CSV, PNG, JSON = "sensitivity.csv", "sensitivity.png", "sensitivity.json"


class Measured(NamedTuple):
    """The sensitivity of one run."""

    config: TrainConfig
    profile: Profile
    """The average over its greedy episodes."""
    rml: float | None
    """Its environment's reward memory length; see `memoroids.analysis.sensitivity.reward_memory_length`."""


def measure(run_dir: Path, episodes: int, seed: int) -> Measured:
    """Measures a run's newest parameters over `episodes` greedy episodes on fresh environment seeds.

    Raises `ValueError` if the run cannot be read or its network has no action values, `CheckpointError` if no
    checkpoint can be read.
    """
    config, parts, params = load(run_dir)
    try:
        if not parts.agent.traits.action_values:
            able = " or ".join(name for name, kind in REGISTRY.items() if kind.traits.action_values)
            raise ValueError(
                f"{run_dir} is a run of {config.algorithm}, whose network has no action values: it needs {able}"
            )
        played = parts.evaluator.play(params, episodes, environment_seeds(config.seed, REPORT, seed))
        found = sensitivities(parts.agent.network(params), [episode.tape for episode in played], value_of)
        return Measured(config, Profile.of(found), reward_memory_length(parts.env))
    finally:
        parts.close()


def report(measured: Measured) -> dict[str, Any]:
    """The content of sensitivity.json.

    An infinite `rml` is written as "episode"; if it is unknown, `rml` and `beyond_rml` are None.
    """
    config, profile, rml = measured
    lengths = (config.replay.segment_length,) if config.replay.batching == "segments" else SEGMENT_LENGTHS
    return {
        "episodes": profile.episodes,
        "left_out": profile.left_out,
        "vml": {f"{share:g}": vml(profile, share) for share in (0.5, 0.95, 0.99)},
        "rml": "episode" if rml == math.inf else rml,
        "beyond_rml": None if rml is None else share_beyond(profile, rml),
        # A segment of L transitions reaches ages 0 to L - 1.
        "beyond_segment": {str(length): share_beyond(profile, length - 1) for length in lengths},
        "first_share": profile.first,
    }


def run(run_dir: Path, episodes: int, seed: int, output: Path | None = None) -> None:
    """Measures a run, prints a summary, and writes sensitivity.csv, .png and .json to `output`, by default `run_dir`.

    Raises `ValueError` or `CheckpointError`, as `measure` does.
    """
    measured = measure(run_dir, episodes, seed)
    config, profile, rml = measured
    found = report(measured)
    output = output or run_dir
    output.mkdir(parents=True, exist_ok=True)
    with (output / CSV).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("age", "share", "cumulative"))
        for age, (share, cumulative) in enumerate(zip(profile.share, profile.cumulative, strict=True)):
            writer.writerow((age, float(share), float(cumulative)))
    (output / JSON).write_text(json.dumps(found, indent=2) + "\n")
    segments = config.replay.segment_length if config.replay.batching == "segments" else None
    name = f"{short_name(config.env.id)}, {config.network.memory}, seed {config.seed}"
    draw_profiles(output / PNG, {config.network.memory: profile}, rml=rml, segment_length=segments, title=name)

    reach = {None: "not known for this environment", math.inf: "the whole episode"}.get(rml, f"{rml} observations back")
    print(f"{name}: {profile.episodes} greedy episodes on fresh seeds")
    if profile.left_out:
        print(
            f"left out: {profile.left_out} episodes whose value depends on no observation or has non-finite derivatives"
        )
    lengths = ", ".join(f"{age} ({float(share):.0%})" for share, age in found["vml"].items())
    print(f"value depends on observations up to (VML)    {lengths} back")
    print(f"reward depends on observations up to (RML)   {reach}")
    if found["beyond_rml"] is not None:
        print(f"sensitivity beyond the RML                   {found['beyond_rml']:.2%}")
    for length, share in found["beyond_segment"].items():
        print(f"sensitivity out of reach of segments of {length:4} {share:.2%}")
    print(f"sensitivity to the first observation         {found['first_share']:.2%}")
    print(f"written: {output / CSV}, {output / PNG}, {output / JSON}")
