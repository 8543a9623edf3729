"""What a search is told: ranges, lists, seeds kept apart, and what is wrong with a file."""

from pathlib import Path

import pytest

from memoroids.experiments.tune_file import Range, TuneFile, read_tune
from memoroids.runs.settings import TrainConfig

EXAMPLE = Path(__file__).parents[2] / "examples" / "tune.toml"
SEARCH = "[search]\nwidth = [8, 16]\n"


def read(tmp_path: Path, text: str) -> TuneFile:
    (tmp_path / "mine.toml").write_text(text)
    return read_tune(tmp_path / "mine.toml")


def test_the_example_says_what_is_searched():
    tune = read_tune(EXAMPLE)
    assert tune.search == {
        "learning_rate": Range(1e-4, 1e-2, log=True),
        "num_envs": Range(8, 64, step=8),
        "discount": [0.5, 0.9, 0.99],
    }
    found = tune.search["num_envs"], tune.search["learning_rate"]
    assert [isinstance(each, Range) and each.whole for each in found] == [True, False]
    assert (tune.seeds, tune.first_seed, tune.report_seeds, tune.first_report_seed) == (1, 100, 3, 0)


def test_a_trial_is_a_run_with_the_same_options(tmp_path: Path):
    tune = read(tmp_path, "[settings]\nenv = 'RepeatFirstEasy'\nmemory_sizes = {state_size = 8}\n" + SEARCH)
    alone = TrainConfig.of(
        preset="tuned", env="popgym-RepeatFirstEasy-v0", memory_sizes={"state_size": 8}, width=16, seed=100
    )
    assert tune.config({"width": 16}, 100) == alone and tune.title == "mine"


WRONG: dict[str, tuple[str, str]] = {
    "no search": ("trials = 3", r"\[search\] names no setting"),
    "unknown key": ("trails = 3\n" + SEARCH, "unknown key 'trails'; did you mean trials?"),
    "no trials": ("trials = 0\n" + SEARCH, "trials must be at least 1, got 0"),
    "a negative seed": ("first_seed = -1\n" + SEARCH, "first_seed must be at least 0"),
    "prune is no flag": ("prune = 1\n" + SEARCH, "prune must be true or false, got 1"),
    "seeds in common": (
        "first_seed = 2\n" + SEARCH,
        "seeds of the search, 2 to 2, and those of the report, 0 to 2, must have none in common",
    ),
    "set twice": ("[settings]\nwidth = 8\n" + SEARCH, r"width is set by \[settings\] and by \[search\]"),
    "seed": ("[search]\nseed = [1, 2]", r"\[search\] sets seed: count seeds with"),
    "seeds": ("[settings]\nseeds = 3\n" + SEARCH, r"\[settings\] sets seeds: count seeds with"),
    "preset": ("[search]\npreset = ['tuned', 'paper']", r"\[search\] sets preset: name it outside the tables"),
    "no title": ("title = ''\n" + SEARCH, "title must not be empty"),
    "a step of another kind": (
        "[search]\nwidth = {low = 8, high = 64, step = 8.0}",
        "step must be whole between whole",
    ),
    "unknown setting": ("[search]\nwidht = [8, 16]", "unknown setting 'widht'; did you mean width?"),
    "another agent's": (
        "[settings]\nalgorithm = 'ppo'\n[search]\npolyak = [0.9, 0.99]",
        "polyak is a setting of .*dqn.*, but the algorithm is ppo",
    ),
    "wrong type": ("[search]\nwidth = [8, 16.5]", "width must be int, got 16.5"),
    "a range of floats for whole numbers": ("[search]\nwidth = {low = 8, high = 16.5}", "width must be int, got 16.5"),
    "out of range": ("[search]\ndiscount = {low = 0.5, high = 1.5}", "discount must be .*1.5"),
    "unknown memory": ("[search]\nmemory = ['lru', 'grru']", "'grru'"),
    "one value": ("[search]\nwidth = [8]", "width must have two values or more"),
    "twice": ("[search]\nwidth = [8, 8]", "none of them twice"),
    "a number": ("[search]\nwidth = 8", "width must be a list of values or a range"),
    "unknown part": ("[search]\nwidth = {low = 8, heigh = 16}", "unknown key 'heigh'; did you mean high?"),
    "no high": ("[search]\nwidth = {low = 8}", "width has no high"),
    "text": ("[search]\nwidth = {low = 'a', high = 'b'}", "low, high and step must be numbers"),
    "upside down": ("[search]\nwidth = {low = 16, high = 8}", "low must be below high, got 16 and 8"),
    "log of nothing": ("[search]\nwidth = {low = 0, high = 8, log = true}", "log needs a low above 0 and no step"),
    "log is a number": ("[search]\nwidth = {low = 1, high = 8, log = 1}", "log must be true or false, got 1"),
    "no step": ("[search]\nwidth = {low = 1, high = 8, step = 0}", "step must be above 0, got 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_file_is_said_in_one_line(name: str, tmp_path: Path):
    text, says = WRONG[name]
    with pytest.raises(ValueError, match=says) as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value) and "mine.toml" in str(error.value)
