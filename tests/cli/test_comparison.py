"""`memoroids compare`: only the settings that differ, and means over the seeds of runs that differ in nothing else."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memoroids.cli.comparison import (
    differing,
    further,
    grouped,
    heading,
    labels,
    print_comparison,
    read_runs,
    table,
    telling,
)
from memoroids.runs.metrics import MetricsFile
from memoroids.runs.run_directory import METRICS
from memoroids.runs.settings import TrainConfig
from memoroids.runs.settings_file import to_json
from metric_rows import row

ENV = "popgym-RepeatFirstEasy-v0"


def write(path: Path, returns: list[float] | None = None, final: float | None = None, **settings: Any) -> Path:
    """A run directory with these evaluation returns and this final return; unfinished without one."""
    path.mkdir(parents=True)
    config = TrainConfig.of(**{"env": ENV, "memory": "lru", "run_dir": path} | settings)
    (path / "config.json").write_text(to_json(config))
    if returns is None:
        return path
    with closing(MetricsFile(path / METRICS)) as file:
        for i, value in enumerate(returns):
            file.write(row(10 * (i + 1), eval_return=value, seconds=7.0))
    if final is not None:
        values = {"final_return": final, "final_interval": [final - 0.5, final + 0.5]}
        (path / "summary.json").write_text(json.dumps(values))
    return path


def cells(lines: list[str]) -> list[list[str]]:
    """The cells of a table, whose columns two spaces or more hold apart."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def test_only_settings_that_differ_are_shown(tmp_path: Path):
    a = write(tmp_path / "a", [0.1], 0.25, learning_rate=1e-3)
    b = write(tmp_path / "b", [0.1, 0.2], memory="gru", learning_rate=1e-4, width=32)
    c = write(tmp_path / "c", [], learning_rate=1e-4)
    groups = grouped(read_runs([a, b, c]))
    assert differing(groups) == ["memory", "width", "learning_rate"]
    assert telling(groups) == ["memory", "learning_rate"], "the width says no more than the memory"
    assert cells(table(groups)) == [
        ["memory", "learning_rate", "final return [95%]", "episodes", "seconds", "run"],
        ["lru", "0.001", "0.250 [-0.250, 0.750]", "10", "7", str(a)],
        ["gru", "0.0001", "-", "20", "7", str(b)],
        ["lru", "0.0001", "-", "0", "0", str(c)],
    ]
    names = ["lru, learning_rate 0.001", "gru, learning_rate 0.0001", "lru, learning_rate 0.0001"]
    assert labels(groups) == names
    width = str(TrainConfig().network.width)
    assert cells(further(groups)) == [["differs too", *names], ["width", width, "32", width]]
    assert heading(groups) == "RepeatFirstEasy, tapes"
    assert further(groups[::2]) == []


def test_one_run_differs_from_nothing(tmp_path: Path):
    groups = grouped(read_runs([write(tmp_path / "a", [0.1], 0.5, seed=3)]))
    assert cells(table(groups))[0] == ["final return [95%]", "episodes", "seconds", "run"]
    assert (differing(groups), labels(groups)) == ([], ["seed 3"])
    assert heading(groups) == "RepeatFirstEasy, lru, tapes"


def test_runs_that_differ_in_the_seed_only_have_a_mean_and_its_spread(tmp_path: Path):
    finals = [0.1, 0.4, 0.7]
    runs = [write(tmp_path / f"{seed}", [final, 0.5], final, seed=seed) for seed, final in enumerate(finals)]
    other = write(tmp_path / "other", [0.0], 0.0, memory="gru")
    groups = grouped(read_runs([runs[0], other, *runs[1:]]))
    assert [len(group.runs) for group in groups] == [3, 1]
    lines = cells(table(groups))
    assert lines[0][:3] == ["memory", "seed", "final return [95%]"]
    assert [line[1] for line in lines[1:]] == ["0", "1", "2", "mean of 3", "0"]
    deviation = np.sqrt(sum((x - np.mean(finals)) ** 2 for x in finals) / 2)
    assert lines[4][:3] == ["lru", "mean of 3", f"{np.mean(finals):.3f} ± {deviation:.3f}"]
    assert labels(groups) == ["lru, 3 seeds", "gru, seed 0"]
    assert labels(groups[:1]) == ["3 seeds"]


def test_a_run_of_several_seeds_counts_with_those_that_have_begun(tmp_path: Path):
    both = write(tmp_path / "both", seed=4, seeds=3)
    for seed, final in ((4, 1.0), (5, None)):
        write(both / f"seed{seed}", [0.5], final, seed=seed)
    (group,) = grouped(read_runs([both, both / "seed5"]))
    assert [run.path.name for run in group.runs] == ["seed4", "seed5"]
    assert cells(table([group]))[-1] == ["mean of 2", "1.000 (1 finished)", "10", "7", str(both)]
    alone = write(tmp_path / "alone", [0.5], 1.0, seed=6)
    (group,) = grouped(read_runs([both, alone]))
    assert cells(table([group]))[-1][-1] == "7", "no directory contains all of them"
    nothing = write(tmp_path / "nothing", seeds=2)
    with pytest.raises(ValueError, match="nothing holds no metrics: none of its 2 seeds has begun"):
        read_runs([nothing])


def test_two_runs_with_one_seed_and_the_same_settings_are_told_apart_by_their_directories(tmp_path: Path):
    a, b = (write(tmp_path / name, [0.1], 0.5) for name in "ab")
    groups = grouped(read_runs([a, b, a]))
    assert [[run.path for run in group.runs] for group in groups] == [[a], [b]]
    assert labels(groups) == [f"seed 0 ({a})", f"seed 0 ({b})"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"memory": "ffm", "memory_sizes": {"trace_size": 4}}, {"memory": "ffm"}, {"memory_sizes.trace_size"}),
        ({"memory": "ffm", "memory_sizes": {"trace_size": 4}}, {"memory": "gru"}, {"memory"}),
        ({"env_options": {"k": 1}}, {"env_options": {"k": 2}}, {"env_options.k"}),
        ({"stochastic": False, "algorithm": "ppo"}, {"algorithm": "pqn"}, {"algorithm"}),
        ({}, {"batching": "segments", "prioritised": False}, {"batching"}),
    ],
    ids=["given or not", "another memory's", "an environment's", "another algorithm's", "a word"],
)
def test_a_setting_that_one_of_them_has_not_differs_only_where_it_has_a_default(
    first: dict[str, Any], second: dict[str, Any], expected: set[str], tmp_path: Path
):
    groups = grouped(read_runs([write(tmp_path / "a", [0.1], **first), write(tmp_path / "b", [0.1], **second)]))
    found = set(differing(groups))
    assert found >= expected and (found == expected or "algorithm" in expected)
    assert not found & {"clip_ratio", "seed", "epochs", "run_dir"}
    assert len(set(labels(groups))) == 2 and telling(groups)[0] in expected


def test_curves_are_drawn_with_the_mean_of_several_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    runs = [write(tmp_path / f"{seed}", [seed, 0.5], 0.1, seed=seed) for seed in range(2)]
    print_comparison(runs, tmp_path / "curves.png")
    said = capsys.readouterr().out
    assert said.startswith("RepeatFirstEasy, lru, tapes\nseed  ")
    assert "means are over seeds: final return ± standard deviation\n" in said
    assert said.endswith(f"drawn to {tmp_path / 'curves.png'}\n")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    print_comparison(runs[:1], None)
    assert "±" not in capsys.readouterr().out
