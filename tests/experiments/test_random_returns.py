"""Returns of random actions: measured, kept, and read."""

from pathlib import Path

import pytest

from memoroids.experiments import random_returns
from memoroids.experiments.random_returns import RandomReturn, random_return
from memoroids.experiments.suite import SUITE, SuiteChoice, suite_cells


def test_a_tmaze_of_one_step_gives_what_random_turns_give():
    # From the second observation on, one action in three turns rightly, one wrongly, and one waits: all but
    # those who are too late turn, half of them rightly.
    task = SUITE["tmaze-10"]
    found = random_return(task.env, {"length": 1}, episodes=400)
    assert abs(found.mean - 0.5) < 4 * found.error + 0.1 and 0.02 < found.error < 0.03
    assert found.above == found.mean + 2 * found.error


def test_equal_seeds_give_equal_returns_and_others_do_not():
    task = SUITE["cartpole"]
    first, again, other = (random_return(task.env, {}, episodes=10, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_continuous_actions_are_drawn_from_their_range():
    found = random_return(SUITE["pendulum"].env, {}, episodes=10)
    assert -1_800 < found.mean < -700


def test_what_was_measured_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cells = suite_cells(SuiteChoice(tasks=("cartpole", "tmaze-10"), algorithms=("ppo",), seeds=2))
    asked = []

    def measured(env: str, options: dict, episodes: int) -> RandomReturn:
        asked.append((env.partition(":")[2], options))
        return RandomReturn(len(asked), 0.5)

    monkeypatch.setattr(random_returns, "random_return", measured)
    random_returns.measure(tmp_path, cells[:1])
    random_returns.measure(tmp_path, cells)
    assert asked == [("cartpole", {}), ("tmaze", {"length": 10})]
    assert random_returns.read(tmp_path) == {"cartpole": RandomReturn(1, 0.5), "tmaze-10": RandomReturn(2, 0.5)}


@pytest.mark.parametrize("text", ["{", "[1]", '{"cartpole": {"mean": 1}}', '{"cartpole": {"mean": "a", "error": 1}}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str):
    (tmp_path / "random.json").write_text(text)
    with pytest.raises(ValueError, match=r"random\.json holds no random returns .*: delete it to measure them again"):
        random_returns.read(tmp_path)
    assert random_returns.read(tmp_path / "nowhere") == {}
