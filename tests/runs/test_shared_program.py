"""Runs that differ in numbers of their agent share a program, and each learns as it would alone."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from test_device_loop import config, learned, rows_of

from finished_runs import Finished
from memoroids.agents.agent_registry import REGISTRY
from memoroids.runs.build import build_device
from memoroids.runs.device_program import Inputs, Program
from memoroids.runs.settings import TrainConfig
from memoroids.runs.shared_program import differing_numbers, program_key
from memoroids.runs.train import train_through_one_program

BEFORE = {"learning_rate": 1e-2, "learning_rate_end": 1e-3, "max_grad_norm": 0.5, "discount": 0.9, "lambda_": 0.8}
BEFORE |= {"polyak": 0.9, "clip_ratio": 0.2, "value_weight": 0.5, "entropy": 0.1, "entropy_end": 0.05}
AFTER = {"learning_rate": 3e-2, "learning_rate_end": 2e-2, "max_grad_norm": 1e-5, "discount": 0.5, "lambda_": 0.3}
AFTER |= {"polyak": 0.5, "clip_ratio": 0.01, "value_weight": 2.0, "entropy": 0.5, "entropy_end": 0.3}


def with_agent(algorithm: str, values: dict[str, float]) -> TrainConfig:
    numbers = {name: values[name] for name in REGISTRY[algorithm].numbers}
    few = {"agent": config(algorithm).agent} | numbers
    return config(algorithm, train_episodes=30, **few)


def learning(settings: TrainConfig) -> Any:
    """A function that learns with numbers for a few chunks, and returns all parameters in one vector."""
    parts = build_device(settings)
    program = Program.of(settings, parts)
    advance = jax.jit(program.advance)
    begun = program.init(parts.agent.init(parts.network), Inputs.of(parts, {}))

    def parameters(numbers: dict[str, Any]) -> np.ndarray:
        state = begun
        for _ in range(6):
            state, _ = advance(state, Inputs.of(parts, numbers), 1)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.learner.params)])

    return parameters


@pytest.mark.parametrize("algorithm", REGISTRY)
def test_every_number_of_an_agent_may_be_an_input_of_its_program(algorithm: str):
    before, after = with_agent(algorithm, BEFORE), with_agent(algorithm, AFTER)
    given, changed = differing_numbers([before, after])
    assert set(given) == REGISTRY[algorithm].numbers
    learned_with = learning(before)
    base = learned_with(given)
    np.testing.assert_allclose(base, learned_with({}), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(learned_with(changed), learning(after)({}), rtol=1e-3, atol=1e-5)
    for name in given:
        moved = learned_with(given | {name: changed[name]})
        assert not np.array_equal(moved, base), f"{name} has no effect: it is a constant of the program"


@pytest.mark.parametrize("mapping", ["loop", "vmap"])
def test_runs_with_several_learning_rates_are_those_that_they_would_be_alone(
    mapping: str, tmp_path: Path, finished: Finished
):
    both = [config("ppo", learning_rate=rate, seed=seed, mapping=mapping) for rate, seed in ((1e-3, 0), (1e-2, 3))]
    paths = [tmp_path / "together" / str(i) for i in range(2)]
    outcomes = train_through_one_program(both, paths)
    for settings, path, outcome in zip(both, paths, outcomes, strict=True):
        assert outcome.final is not None and outcome.config == settings
        alone = tmp_path / f"alone{settings.seed}"
        finished(settings, alone)
        rows, wanted = rows_of(path), rows_of(alone)
        assert [row["env_steps"] for row in rows] == [row["env_steps"] for row in wanted]
        np.testing.assert_allclose([row["loss"] for row in rows], [row["loss"] for row in wanted], rtol=1e-2)
        for leaf, expected in zip(learned(path), learned(alone), strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-2, atol=1e-4)


def test_what_can_share_a_program():
    key = program_key(config("ppo"))
    for same in ({"seed": 5}, {"learning_rate": 0.1}, {"discount": 0.5, "entropy": 0.2}, {"learning_rate_end": 0.1}):
        assert program_key(config("ppo", **same)) == key, same
    for other in ({"width": 4}, {"num_envs": 8}, {"learning_rate_end": None}, {"warmup": 3}, {"rollout": 7}):
        assert program_key(config("ppo", **other)) != key, other
    assert program_key(config("dqn", lambda_=0.0)) != program_key(config("dqn", lambda_=0.5))
    assert differing_numbers([config("ppo", seed=seed) for seed in (0, 1)]) == [{}, {}]


def test_an_agent_of_the_users_own_is_not_imported_to_find_out():
    own = config("ppo").replace(algorithm="memoroids.agents.ppo:PPO", agent=config("ppo").agent)
    assert program_key(own) == program_key(own.replace(seed=3))
    assert program_key(own) != program_key(own.replace(learning_rate=0.5))
