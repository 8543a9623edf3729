"""Presets of the user's own: read, written, put on top of ours, and refused in one line."""

from pathlib import Path
from typing import Any

import pytest

from memoroids.runs.preset_file import PresetFile, read_preset, write_preset
from memoroids.runs.presets import named_by, preset
from memoroids.runs.settings import TrainConfig

SETTINGS: dict[str, Any] = {
    "env": "popgym-RepeatPreviousEasy-v0",
    "memory": "ffm",
    "learning_rate": 1e-3,
    "width": 32,
    "step_periods": [4, 104],
    "memory_sizes": {"max_decay": 0.5},
    "cut_batch": True,
    "priority.mix": 0.9,
}


def test_what_is_written_is_read_and_used_on_top_of_the_preset_that_it_names(tmp_path: Path):
    path = tmp_path / "mine.toml"
    write_preset(path, PresetFile("tuned", SETTINGS), ["found by", 'a "search"'])
    assert read_preset(path) == ("tuned", SETTINGS)
    assert path.read_text().startswith('# found by\n# a "search"\n')
    config = TrainConfig.of(preset=str(path))
    ours = preset("tuned", SETTINGS["env"], "ffm")
    assert ours["memory_sizes"]["max_period"] == config.network.memory_sizes["max_period"]
    sizes = ours["memory_sizes"] | {"max_decay": 0.5}
    expected = SETTINGS | {"step_periods": (4, 104), "memory_sizes": sizes}
    assert config == TrainConfig.of(**ours | expected)
    assert named_by(str(path)) == {"env": SETTINGS["env"], "memory": "ffm"} and named_by("tuned") == {}


def test_what_is_given_replaces_what_the_file_says(tmp_path: Path):
    path = tmp_path / "mine.toml"
    write_preset(path, PresetFile("default", {"memory": "gru", "width": 8, "algorithm": "ppo", "steps": 10}), [])
    config = TrainConfig.of(preset=str(path), memory="lru", width=16)
    assert (config.network.memory, config.network.width, config.algorithm, config.budget.steps) == (
        "lru",
        16,
        "ppo",
        10,
    )
    with pytest.raises(ValueError, match="entropy is a setting of ppo, but the algorithm is dqn"):
        write_preset(path, PresetFile("default", {"entropy": 0.1}), [])
        TrainConfig.of(preset=str(path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[settings", "mine.toml: .*']'"),
        ("setting = 3", "mine.toml: unknown key 'setting'; did you mean settings?"),
        ("preset = 3", "preset must be text, got 3"),
        ("settings = 3", "settings must be a table, got 3"),
        ("preset = 'other.toml'", "preset must be one of ours, got the file 'other.toml'"),
        ("preset = 'tund'", "unknown preset 'tund'; did you mean tuned?"),
        ("[settings]\nmemory = 3", "memory must be text, got 3"),
        ("[settings]\nrun_dir = 'x'", "sets run_dir, which is no part of a preset"),
        ("[settings]\nwidth = 1.5", "width must be int, got 1.5"),
        ("[settings]\nwidht = 8", "unknown setting 'widht'; did you mean width?"),
    ],
)
def test_a_file_that_is_no_preset_is_refused_in_one_line(text: str, says: str, tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says) as error:
        TrainConfig.of(preset=str(path))
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"none.toml cannot be read: No such file"):
        TrainConfig.of(preset=str(tmp_path / "none.toml"))
