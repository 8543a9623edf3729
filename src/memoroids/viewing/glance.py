"""One episode of a trained agent and what its memory did in it, as data for a page."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from memoroids.envs.interface import Interface
from memoroids.runs.load import load_acting
from memoroids.runs.seeds import REPORT, environment_seeds
from memoroids.runs.trained_agent import TrainedAgent
from memoroids.viewing.influence import components, influence, kind_of, outputs_of, passed, states
from memoroids.viewing.recording import Which, chosen_number
from memoroids.viewing.stage import short, stage_of

MOST_STEPS = 400
"""Steps of an episode that are looked at."""
REPLACED, OTHERS = 2, 3
"""How many earlier observations of each step are replaced, and by how many others."""
SIDE = 160
"""The longer side of a picture, in pixels."""


class Played(NamedTuple):
    """An episode as the agent saw it: rows (T, …), what they were, actions in two forms, rewards, pictures or text."""

    rows: np.ndarray
    seen: list[Any]
    taken: np.ndarray
    actions: list[Any]
    rewards: list[float]
    frames: list[Any]


def glance(
    run_dir: Path,
    *,
    which: Which = "best",
    episodes: int = 10,
    seed: int = 0,
    best: bool = False,
    untrained: bool = False,
    env_seed: int | None = None,
) -> dict[str, Any]:
    """Plays greedy episodes on fresh seeds and describes the `which` of them, ready for JSON.

    `best`: the parameters of the best evaluation instead of the newest; `untrained`: those that training began with.
    `env_seed`: the environment seed of the only episode to play, instead of choosing among several.

    Raises `ValueError` if the run cannot be read, and `CheckpointError` if it has no such parameters.
    """
    config, parts, params = load_acting(run_dir, best=best, untrained=untrained)
    agent, network = TrainedAgent(parts, params), parts.agent.network(params)
    stage = stage_of(config, pictures=True)
    try:
        chosen, told = env_seed, "in the same environment seed"
        if chosen is None:
            seed_of = environment_seeds(config.seed, REPORT, seed)
            returns = [sum(_play(agent, stage, seed_of(number), frames=False).rewards) for number in range(episodes)]
            chosen, told = (
                seed_of(chosen_number(np.asarray(returns), which)),
                f"the {which} of {episodes} greedy episodes",
            )
        played = _play(agent, stage, chosen, frames=True)
    finally:
        stage.close()
    used = "untrained" if untrained else "best" if best else "newest"
    names, groups = _groups(parts.env)
    rows, taken = jnp.asarray(played.rows), jnp.asarray(played.taken)
    out, _ = jax.jit(lambda rows: network(rows, jnp.arange(rows.shape[0]) == 0))(rows)
    found = outputs_of(out)
    moved = np.asarray(influence(network, rows, taken, jnp.asarray(groups)))
    state = components(jax.device_get(states(network, rows)))
    own = played.rows.shape[-1] - parts.env.joined if played.rows.ndim == 2 else None
    return {
        "title": f"{config.network.memory} on {config.env.id}{', before training' if untrained else ''}",
        "about": f"{config.algorithm}, run {run_dir.name}, {used} parameters",
        "seed": chosen,
        "return": sum(played.rewards),
        "which": told,
        "kind": kind_of(out),
        "parts": names,
        "steps": [
            {
                "seen": short(seen),
                "frame": _picture(frame),
                "action": short(action),
                "reward": reward,
                "value": _figure(value),
                "options": [_figure(number) for number in options],
            }
            for seen, frame, action, reward, value, options in zip(
                played.seen,
                played.frames,
                played.actions,
                played.rewards,
                np.asarray(found.value),
                np.asarray(found.options),
                strict=True,
            )
        ],
        "influence": [[[_figure(x) for x in earlier] for earlier in row[: t + 1]] for t, row in enumerate(moved)],
        "state": np.round(255 * state.values).astype(int).T.tolist(),
        "times": state.times.tolist(),
        "instead": [] if own is None else _instead(network, played, moved.sum(-1), own),
    }


def _play(agent: TrainedAgent, stage: Any, seed: int, *, frames: bool) -> Played:
    """Plays one episode, up to `MOST_STEPS`."""
    rows, seen, taken, actions, rewards, shown = [], [], [], [], [], []
    agent.reset()
    observation, reward, over = stage.reset(seed), 0.0, False
    while not over and len(actions) < MOST_STEPS:
        seen.append(observation)
        shown.append(stage.frame() if frames and stage.pictures else None)
        action = agent.act(observation, reward)
        rows.append(agent.last_row())
        taken.append(agent.last_action())
        actions.append(action)
        observation, reward, over = stage.step(action)
        rewards.append(reward)
    return Played(np.stack(rows), seen, np.stack(taken), actions, rewards, shown)


def _groups(view: Interface) -> tuple[list[str], np.ndarray]:
    """The parts of an observation by name, and which numbers of a row belong to which, (n, parts)."""
    sizes = view.sizes_of_parts()
    groups = np.zeros((sum(sizes.values()), len(sizes)), np.float32)
    start = 0
    for number, size in enumerate(sizes.values()):
        groups[start : start + size, number] = 1
        start += size
    return list(sizes), groups


def _instead(network: Any, played: Played, moved: np.ndarray, own: int) -> list[list[dict[str, Any]]]:
    """For each step, what the network would say if one of the earlier observations that moved it most were another.

    Others are observations of the same episode; what is joined to them, such as the last action, stays as it was.
    """
    rows, length = played.rows, len(played.rows)
    kinds: dict[bytes, int] = {}
    for step, row in enumerate(rows):
        kinds.setdefault(row[:own].tobytes(), step)
    distinct = list(kinds.values())[:50]
    earlier = [[int(i) for i in np.argsort(-row[:t], kind="stable")[:REPLACED]] for t, row in enumerate(moved)]
    pairs: dict[tuple[int, int], int] = {}
    for i in sorted({i for each in earlier for i in each}):
        others = [j for j in distinct if not np.array_equal(rows[j, :own], rows[i, :own])]
        # The most different ones first.
        others.sort(key=lambda j: -float(np.abs(rows[j, :own] - rows[i, :own]).sum()))
        pairs |= {(i, j): len(pairs) + number for number, j in enumerate(others[:OTHERS])}
    if not pairs:
        return [[] for _ in range(length)]
    changed = np.repeat(rows[None], len(pairs), 0)
    for (i, j), number in pairs.items():
        changed[number, i, :own] = rows[j, :own]
    options = np.asarray(passed(network, jnp.asarray(changed)).options)
    return [
        [
            {"at": i, "by": j, "seen": short(played.seen[j]), "options": [_figure(x) for x in options[number, t]]}
            for (i, j), number in pairs.items()
            if i in earlier[t]
        ]
        for t in range(length)
    ]


def _figure(value: Any) -> float:
    """A number with four digits, which keeps pages small; one that is not finite as 0."""
    number = float(value)
    return float(f"{number:.4g}") if np.isfinite(number) else 0.0


def _picture(frame: Any) -> str | None:
    """A picture as the address of a small JPEG that holds itself."""
    if frame is None:
        return None
    import base64
    import io

    from PIL import Image  # slow to import; Matplotlib depends on it

    picture = Image.fromarray(np.asarray(frame))
    picture.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
