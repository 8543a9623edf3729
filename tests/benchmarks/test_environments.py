"""`memoroids bench environments`: the transitions it counts, and that it supports every kind of action."""

import numpy as np

from memoroids.benchmarks import environments as bench
from memoroids.envs.device import make_device


def test_fixed_lengths_are_counted_in_whole_episodes():
    steps = bench.device_steps(make_device("RepeatFirstEasy"), 3, 60)
    for _ in range(3):
        seen = steps()
        assert seen["transitions"] == 3 * 2 * 51
        assert abs(float(seen["reward"])) < 3 * 2


def test_variable_lengths_are_counted_without_their_resets():
    steps = bench.device_steps(make_device("MineSweeperEasy"), 5, 40)
    counts = np.array([int(steps()["transitions"]) for _ in range(3)])
    assert np.all(counts < 5 * 40) and np.all(counts > 5 * 20)


def test_rows_hold_rates_and_their_ratio(capsys):
    bench.run(1, ("MultiarmedBanditEasy", "PositionOnlyPendulumHard"), num_envs=4)
    head, names, *rows, lowest = capsys.readouterr().out.splitlines()
    assert "4 environments" in head and names.split() == ["environment", "device", "POPGym", "ratio"]
    assert [row.split()[0] for row in rows] == ["MultiarmedBanditEasy", "PositionOnlyPendulumHard"]
    ratios = []
    for row in rows:
        device, python, ratio = (float(word.replace(",", "")) for word in row.split()[1:])
        assert abs(ratio - device / python) <= 0.6
        ratios.append(ratio)
    assert float(lowest.removeprefix("lowest ratio: ").replace(",", "")) == min(ratios)
