"""Budgets and schedules: no run passes its budget by more than a rollout, and schedules end where the run ends."""

import json
import random
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import schedule_probe
from memoroids.runs.build import build, host_slots
from memoroids.runs.metrics import read
from memoroids.runs.progress import TrainingError
from memoroids.runs.run_directory import METRICS, SUMMARY
from memoroids.runs.schedule import share_trained
from memoroids.runs.setting_groups import BudgetSettings
from memoroids.runs.settings import TrainConfig
from memoroids.runs.train import RestoredRun, train

LONGEST = 5
"""Transitions in the longest episode of the toy environment."""
CARDS = 51
"""Transitions in an episode of RepeatPreviousEasy."""
PLACES = ("host", "device whole", "device unfinished", "device seeds mapped")
CASES = list(product(PLACES, ("REPLAY", "ROLLOUT"), ("episodes", "steps")))


def config(place: str, agent: str, budget: str, seed: int = 0) -> TrainConfig:
    """Settings drawn at random for one case, with an evaluation only at the end."""
    draw = random.Random(f"{place} {agent} {budget} {seed}")
    settings = {
        "algorithm": f"schedule_probe:{agent}",
        "memory": "mlp",
        "memory_sizes": {},
        "width": 4,
        "num_envs": draw.choice((2, 3, 5)),
        "random_episodes": draw.randint(1, 7) if agent == "REPLAY" else 0,
        "eval_every": 10_000,
        "eval_episodes": 2,
        "final_episodes": 2,
        "batch_size": 8,
        "buffer_size": 10_000,
        "updates_per_episode": draw.choice((1, 3)),
        **schedule_probe.EPSILON,
    }
    if place == "host":
        settings |= {"env": "RepeatPreviousEasy"} | ({"random_episodes": 1} if agent == "REPLAY" else {})
    else:
        shortest = 1 if place == "device unfinished" else LONGEST
        settings |= {"env": "device:toy_env:Lengths", "env_options": {"min_length": shortest}}
    if place == "device unfinished":
        settings["rollout"] = draw.choice((3, 7))
    if place == "device seeds mapped":
        settings |= {"seeds": 2, "mapping": "vmap"}
    if budget == "episodes":
        settings["train_episodes"] = draw.randint(20, 60)
    else:
        settings["steps"] = draw.randint(250, 400)
    return TrainConfig.of(**settings)


@pytest.mark.parametrize(("place", "agent", "budget"), CASES)
@pytest.mark.one_in(5)
def test_no_budget_is_passed_by_more_than_a_rollout_and_schedules_end_with_the_run(
    place, agent, budget, tmp_path: Path
):
    settings = config(place, agent, budget)
    train(settings, tmp_path / "run")
    for seed in range(settings.placement.seeds):
        own = settings.replace(seed=seed, seeds=1)
        check(place, agent, own, tmp_path / "run" / f"seed{seed}" if settings.placement.seeds > 1 else tmp_path / "run")


def check(place: str, agent: str, settings: TrainConfig, run: Path) -> None:
    restored = RestoredRun(settings, build(settings), run, resume=True)
    counters, learner = restored.counters, restored.learner
    restored.parts.close()

    num_envs, slots = settings.collection.num_envs, settings.collection.rollout or LONGEST + 1
    unfinished = place == "device unfinished" or (place, agent) == ("host", "ROLLOUT")
    if place == "host":
        slots = CARDS if agent == "REPLAY" else host_slots(settings)
    if settings.budget.steps is None:
        # A rollout may end as many episodes as it has slots, or one for each environment.
        rollout = 1 if (place, agent) == ("host", "REPLAY") else num_envs
        rollout *= slots if unfinished else 1
        assert 0 <= counters.episode - settings.budget.train_episodes < rollout
    else:
        rollout = num_envs * slots
        assert 0 <= counters.env_steps - settings.budget.steps < rollout
    assert counters.random == settings.budget.random_episodes
    if place in ("device whole", "device seeds mapped"):
        assert counters.env_steps == LONGEST * (counters.episode + counters.random)
        assert counters.random_steps == LONGEST * counters.random
    if agent == "ROLLOUT":
        assert counters.env_steps == learner.transitions and counters.random_steps == 0
    else:
        assert learner.updates == counters.updates == settings.replay.updates_per_episode * counters.episode
    summary = json.loads((run / SUMMARY).read_text())
    assert summary["env_steps"] == counters.env_steps and summary["episode"] == counters.episode

    assert learner.first < 0.2 and learner.last == 1.0 and learner.in_order
    if agent == "ROLLOUT" or place == "host":
        assert learner.first == 0.0
    if agent == "ROLLOUT" and not (place == "host" and settings.budget.steps):
        assert learner.actions.all()  # the host does not know which episode will be its last
    assert read(run / METRICS)[-1]["epsilon"] == schedule_probe.EPSILON["epsilon_end"]


def test_the_share_of_training_leaves_out_random_episodes():
    def share(budget: BudgetSettings, *counts: int, ahead: int = 0) -> float:
        return float(share_trained(budget, *map(np.int64, counts), ahead))

    episodes = BudgetSettings(random_episodes=10, train_episodes=40)
    assert [share(episodes, n, 999, 99) for n in (0, 10, 40, 44)] == [0.0, 0.25, 1.0, 1.0]
    steps = BudgetSettings(random_episodes=10, steps=1_000)
    assert [share(steps, 7, n, 200) for n in (200, 400, 1_000, 1_100)] == [0.0, 0.25, 1.0, 1.0]
    assert [share(steps, 7, n, 200, ahead=400) for n in (200, 400, 600)] == [0.0, 0.5, 1.0]
    assert share(steps, 0, 1_000, 1_000) == 0.0


def test_random_episodes_that_use_up_all_steps_are_an_error(tmp_path: Path):
    settings = config("host", "REPLAY", "steps").replace(random_episodes=1_000, steps=60)
    with pytest.raises(TrainingError, match=r"^the first \d+ random episodes used up all 60 steps, [^\n]*$"):
        train(settings, tmp_path / "host")
    settings = config("device unfinished", "REPLAY", "steps").replace(random_episodes=99, steps=100)
    with pytest.raises(TrainingError, match=r"^the first \d+ random episodes used up all 100 steps, [^\n]*$"):
        train(settings, tmp_path / "device")
    settings = config("device whole", "REPLAY", "steps").replace(random_episodes=20, steps=100)
    with pytest.raises(ValueError, match=r"^the 20 random episodes alone take at least 100 of 100 steps: "):
        train(settings, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
