"""How far back the values of a trained agent depend on observations (Morad et al. 2024, Figures 3 and 8)."""

import csv
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from memoroids.runs.settings import TrainConfig
from memoroids.envs import short_name
from memoroids.runs.build import REPORT, environment_seeds
from memoroids.runs.presets import SEGMENT_LENGTHS
from memoroids.runs.run_directory import load
from memoroids.analysis.sensitivity import Profile, draw_profiles, reward_memory_length, sensitivities, share_beyond, vml

CSV, PNG, JSON = "sensitivity.csv", "sensitivity.png", "sensitivity.json"


class Measured(NamedTuple):
    """A run's settings, the profile of its greedy episodes, and its environment's RML (see `reward_memory_length`)."""

    config: TrainConfig
    profile: Profile
    rml: float | None


def measure(run_dir: Path, episodes: int, seed: int) -> Measured:
    """The profile of a run's newest parameters over greedy episodes on fresh environment seeds.

    Raises `ValueError` or `CheckpointError` where the run cannot be read.
    """
    config, parts, params = load(run_dir)
    try:
        if config.algorithm == "ppo":
            raise ValueError(f"{run_dir} is a run of ppo, whose network has no action values: it needs dqn or pqn")
        played = parts.evaluator.play(params, episodes, environment_seeds(config.seed, REPORT, seed))
        found = sensitivities(parts.algorithm.network(params), [episode.tape for episode in played])
        return Measured(config, Profile.of(found), reward_memory_length(parts.env))
    finally:
        parts.close()


def report(measured: Measured) -> dict[str, Any]:
    """The numbers of sensitivity.json: `rml` is "episode" for a whole one, None (as `beyond_rml`) where not known."""
    config, profile, rml = measured
    lengths = (config.segment_length,) if config.batching == "segments" else SEGMENT_LENGTHS
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
    """Measures a run, prints what was found, and writes sensitivity.csv, .png and .json to `output` or the run.

    Raises `ValueError` or `CheckpointError` where the run cannot be read.
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
    segments = config.segment_length if config.batching == "segments" else None
    name = f"{short_name(config.env)}, {config.memory}, seed {config.seed}"
    draw_profiles(output / PNG, {config.memory: profile}, rml=rml, segment_length=segments, title=name)

    said = {None: "not known for this environment", math.inf: "the whole episode"}.get(rml, f"{rml} observations back")
    print(f"{name}: {profile.episodes} greedy episodes on fresh seeds")
    if profile.left_out:
        print(f"left out: {profile.left_out} episodes whose value depends on no observation, or not finitely")
    lengths = ", ".join(f"{age} ({float(share):.0%})" for share, age in found["vml"].items())
    print(f"value depends on observations up to (VML)    {lengths} back")
    print(f"reward depends on observations up to (RML)   {said}")
    if found["beyond_rml"] is not None:
        print(f"sensitivity beyond the RML                   {found['beyond_rml']:.2%}")
    for length, share in found["beyond_segment"].items():
        print(f"sensitivity out of reach of segments of {length:4} {share:.2%}")
    print(f"sensitivity to the first observation         {found['first_share']:.2%}")
    print(f"written: {output / CSV}, {output / PNG}, {output / JSON}")
