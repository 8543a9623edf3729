"""Each finding on figures that are given, and that healthy figures give none."""

import math
import re
from typing import Any

import pytest

from memoroids.cli.setting_flags import flagged
from memoroids.runs.baseline import Baseline, Seen
from memoroids.runs.doctor import LEAST_UPDATES, SAID_ELSEWHERE, Record, examine
from memoroids.runs.metrics import FIELDS
from memoroids.runs.settings import TrainConfig

SEEN = Seen(2, 0, 2, 2, [0.1, -0.2], [1.0, 0.8], [-3.0, -2.0], [3.0, 2.0])
HEALTHY = Baseline(
    returns=[20.0, 24.0, 16.0, 22.0, 18.0],
    lengths=[20, 24, 16, 22, 18],
    truncated=0,
    steps=100,
    seconds=0.01,
    limit=500,
    rewards=[0.0, 1.0],
    most_entropy=math.log(2),
    action_size=1,
    seen=SEEN,
)


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"env": "CartPole-v1", "algorithm": "ppo", "train_episodes": 100, "eval_every": 10}
    return TrainConfig.of(**settings | {"eval_episodes": 20} | changes)


def rows(count: int = 10, **changes: Any) -> list[dict[str, float]]:
    """Rows of a run that learns; what is changed is a number, or a function of the row's number from 1."""
    found = []
    for i in range(1, count + 1):
        row = dict.fromkeys(FIELDS, 0.0) | {"episode": 10 * i, "env_steps": 1_000 * i, "updates": 40 * i}
        row |= {"eval_return": 20.0 + 8 * i, "train_return": 20.0 + 7 * i, "entropy": 0.69 - 0.04 * i}
        row |= {"kl": 0.01, "clipped": 0.1, "policy_grad": 0.2, "value_grad": 0.5, "grad_norm": 0.9}
        row |= {"env_seconds": 0.1, "policy_seconds": 0.5, "update_seconds": 0.4}
        found.append(row | {name: value(i) if callable(value) else value for name, value in changes.items()})
    return found


def names(*arguments: Any, **named: Any) -> list[str]:
    return [finding.name for finding in examine(Record(*arguments, **named))]


def base(**changes: Any) -> Baseline:
    return Baseline(**{**HEALTHY.__dict__, **changes})


def seen(**changes: Any) -> Baseline:
    return base(seen=Seen(**{**SEEN.__dict__, **changes}))


@pytest.mark.parametrize("count", range(11))
@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_nothing_is_found_in_a_run_that_learns_at_any_time(count: int, algorithm: str):
    absent = {} if algorithm == "ppo" else dict.fromkeys(("entropy", "kl", "clipped", "policy_grad"), math.nan)
    assert names(config(algorithm=algorithm), rows(count, **absent), HEALTHY) == []
    assert names(config(algorithm=algorithm), rows(count, **absent)) == []


FLAT = {"eval_return": 20.0, "train_return": 20.0}
PLANTED: dict[str, tuple[dict[str, Any], list[dict[str, float]], Baseline]] = {
    "observations never change": ({}, [], seen(changing=0, moving=0)),
    "rewards never vary": ({}, [], base(rewards=[0.0, 0.0], returns=[0.0] * 5)),
    "episodes of one step": ({"max_episode_steps": 1}, [], base(lengths=[1] * 5, truncated=5)),
    "always the time limit": ({"max_episode_steps": 9}, [], base(lengths=[9] * 5, truncated=5)),
    "observations far from unit scale": ({}, [], seen(mean=[0.1, 1e6])),
    "observations beyond their bounds": ({}, [], seen(outside=1)),
    "slow environment": ({}, [], base(seconds=2.0)),
    "no better than random": ({}, rows(**FLAT), HEALTHY),
    "value loss swamps the policy": ({}, rows(value_grad=30.0, grad_norm=25.0), HEALTHY),
    "entropy collapsed": ({"target_return": 475.0}, rows(entropy=lambda i: 0.6 * 0.2**i), HEALTHY),
    "entropy never moved": ({"target_return": 475.0}, rows(entropy=0.6925), HEALTHY),
    "policy changes too fast": ({}, rows(kl=0.3), HEALTHY),
    "policy does not change": ({"target_return": 475.0}, rows(kl=0.0, clipped=0.0), HEALTHY),
    "updates skipped": ({}, rows(skipped=3.0), HEALTHY),
    "fallen from its best": ({}, rows(), HEALTHY),
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_mistake_is_found_alone_in_one_line_with_figures_and_options_that_exist(name: str):
    changes, found_rows, baseline = PLANTED[name]
    final = (30.0, 2.0) if name == "fallen from its best" else None
    (finding,) = examine(Record(config(**changes), found_rows, baseline, final))
    assert finding.name == name and "\n" not in finding.line and 40 < len(finding.line) < 300
    assert finding.figures and all(math.isfinite(value) for value in finding.figures.values())
    assert re.search(r"\d", finding.line)
    options = {each.replace("_", "-") for each in vars(flagged(config()))}
    options |= {each.replace("_", "-") for group in vars(config()).values() for each in getattr(group, "__dict__", {})}
    for option in re.findall(r"--([a-z][a-z-]+)", finding.line):
        assert option in options | {"best"}, option
    assert ": " in finding.line  # what is seen, and what to try


def test_what_a_run_says_elsewhere_are_names_of_findings():
    assert set(SAID_ELSEWHERE) <= set(PLANTED)


def test_nothing_is_said_of_learning_before_enough_is_known():
    flat = {"eval_return": 20.0, "train_return": 20.0}
    assert names(config(), rows(2, **flat), HEALTHY) == []
    assert names(config(), rows(3, **flat), HEALTHY) == ["no better than random"]
    assert names(config(train_episodes=121), rows(3, **flat), HEALTHY) == []
    assert names(config(), rows(3, **flat, updates=LEAST_UPDATES - 1), HEALTHY) == []


def test_better_than_random_is_by_two_standard_errors_of_the_difference():
    # The deviation of the baseline is √10, the error √10 · √(1/5 + 1/200).
    error = math.sqrt(10 * (1 / 5 + 1 / 200))
    for gain, expected in ((1.9, ["no better than random"]), (2.1, [])):
        assert names(config(), rows(eval_return=20 + gain * error), HEALTHY) == expected


def test_rewards_that_came_later_or_vary_by_length_are_no_finding():
    nothing = base(rewards=[0.0, 0.0], returns=[0.0] * 5)
    still = rows(3, eval_return=0.0, train_return=0.0)
    assert names(config(), still, nothing) == ["rewards never vary"]
    assert names(config(), [*still[:2], still[2] | {"train_return": 0.05}], nothing) == ["no better than random"]
    assert names(config(), [], base(rewards=[1.0, 1.0])) == []
    constant = base(rewards=[-1.0, -1.0], returns=[-200.0] * 5, lengths=[200] * 5, truncated=5)
    assert names(config(), [], constant) == ["rewards never vary", "always the time limit"]
    assert "--epsilon-start" in examine(Record(config(algorithm="dqn"), [], nothing))[0].line


def test_a_task_that_pays_on_the_way_to_its_own_limit_is_no_finding():
    assert names(config(), [], base(lengths=[200] * 5, truncated=5)) == []


def test_an_observation_that_moves_only_between_episodes_is_found_but_not_where_episodes_are_one_step():
    assert names(config(), [], seen(moving=0)) == ["observations never change"]
    assert names(config(), [], base(seen=Seen(**{**SEEN.__dict__, "moving": 0}), lengths=[1] * 5)) == [
        "episodes of one step"
    ]


def test_scale_names_the_element_and_leaves_pixels_and_symbols_out():
    (finding,) = examine(Record(config(normalise=False), [], seen(mean=[0.1, 1e6])))
    assert finding.line.startswith("element 1 (from 0) of 2") and finding.figures["mean"] == 1e6
    assert names(config(normalise=False), [], seen(mean=[1e6, 0.1], pixels=1)) == []
    assert names(config(normalise=False), [], seen(mean=[1e6, 0.1], pixels=2)) == []
    assert names(config(normalise=False), [], seen(mean=[1e6, 0.1], symbols=[[0, 1]])) == []
    assert names(config(normalise=False), [], seen(mean=[0.1, 1e6], symbols=[[0, 1]])) != []
    assert names(config(normalise=False), [], seen(mean=[0.0, 0.0], deviation=[1e-4, 1e-4])) == [
        "observations far from unit scale"
    ]
    together = seen(elements=5_000, changing=5_000, moving=5_000, mean=[2e3], deviation=[1.0], low=[0.0], high=[9e3])
    (finding,) = examine(Record(config(normalise=False), [], together))
    assert finding.line.startswith("observations: from 0 to 9e+03")


def test_the_scale_of_observations_that_are_normalised_matters_only_where_it_hides_differences():
    assert names(config(), [], seen(mean=[0.1, 1e3])) == names(config(), [], seen(mean=[0.0, 0.0])) == []
    (finding,) = examine(Record(config(), [], seen(mean=[0.1, 1e6])))
    assert "running statistics" in finding.line
    (finding,) = examine(Record(config(normalise=False), [], seen(mean=[0.1, 1e6])))
    assert "--normalise" in finding.line


def test_the_time_of_steps_counts_once_it_is_known():
    slow = base(seconds=2.0)
    assert names(config(), rows(env_seconds=20.0), HEALTHY) == ["slow environment"]
    assert names(config(), rows(env_seconds=20.0, policy_seconds=21.0), slow) == []
    assert names(config(), rows(env_seconds=0.4, policy_seconds=0.1, update_seconds=0.1), HEALTHY) == []
    assert names(config(), rows(env_seconds=lambda i: 20.0 if i == 1 else 0.1), HEALTHY) == []
    assert names(config(), [], base(seconds=None)) == []
    for processes, advice in ((0, "--processes 8"), (8, "--num-envs 16 --processes 16")):
        (finding,) = examine(Record(config(num_envs=8, processes=processes), rows(env_seconds=20.0), HEALTHY))
        assert advice in finding.line and finding.figures["steps_per_s"] == pytest.approx(9_000 / 180)


def test_a_policy_that_has_solved_its_task_may_be_certain_and_one_at_the_end_too():
    collapsed = rows(entropy=0.001, eval_return=490.0)
    assert names(config(target_return=475.0), collapsed, HEALTHY) == []
    late = rows(entropy=lambda i: 0.6 if i < 8 else 0.001)
    assert names(config(target_return=475.0), late, HEALTHY) == []


def test_continuous_actions_have_an_entropy_of_any_sign():
    continuous = base(most_entropy=None, action_size=2)
    target = config(target_return=475.0)
    assert names(target, rows(entropy=lambda i: 2.8 - 0.3 * i), continuous) == []
    assert names(target, rows(entropy=lambda i: 2.8 if i == 1 else -4.0), continuous) == ["entropy collapsed"]
    assert names(target, rows(entropy=2.8), continuous) == ["entropy never moved"]
