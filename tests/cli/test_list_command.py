"""`memoroids list`: environments, memories and presets."""

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest

from memoroids.cli.list_command import WIDTH
from memoroids.cli.main import main
from memoroids.envs import popgym_ids
from memoroids.memory import REGISTRY
from memoroids.memory.registry import COSTS, Cost
from memoroids.runs import presets
from memoroids.runs.settings import TrainConfig

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_listing_does_not_fail_for_letters_that_cannot_be_shown(encoding: str, terminal: Callable[[str], io.BytesIO]):
    shown = terminal(encoding)
    main(["list", "memories"])
    assert "linear_transformer" in shown.getvalue().decode(encoding)


def test_environments_memories_and_presets_are_listed_by_the_names_to_use(ran: Callable[..., str]):
    listed = ran("list", "envs")
    assert all(name in listed.split() for name in popgym_ids())
    listed = ran("list", "memories")
    assert all(f" {name} " in listed for name in REGISTRY)
    listed = ran("list", "presets")
    assert all(f"{task} {name}: " in listed for task in presets.TASKS for name in ("tuned", "paper"))
    assert "any ALE game tuned" not in listed and "any ALE game atari: " in listed and "width=512" in listed
    assert "RepeatFirstEasy tuned, lru: memory_sizes={'r_min': 0.9" in listed
    line = listed.partition("MineSweeperEasy paper: ")[2].partition("MineSweeperEasy paper, ")[0]
    assert "random_episodes=10000" in line and "train_episodes=40000" in line


def test_a_memory_is_listed_with_its_title_and_its_sizes(
    terminal: Callable[[str], io.BytesIO], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "400")
    shown = terminal("utf-8")
    main(["list", "memories"])
    listed = shown.getvalue().decode()
    for name in ("ffm", "gru", "mlp", "linear_transformer"):
        model: Any = REGISTRY[name]
        assert f" {name} " in listed and (sys.modules[model.__module__].__doc__ or "").splitlines()[0] in listed
    assert "layers=2, state_size=128" in listed and "trace_size=64" in listed


def test_a_memory_is_listed_with_its_size_and_what_it_costs(
    terminal: Callable[[str], io.BytesIO], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "400")
    shown = terminal("utf-8")
    main(["list", "memories"])
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in shown.getvalue().decode().splitlines()
        if "│" in line
    ]
    rows = {row[0]: row[1:] for row in cells if len(row) == 6}
    assert TrainConfig().network.width == WIDTH
    # Three matrices for inputs and for the state, and four vectors of biases; two layers of complex states.
    assert rows["gru"][:2] == [f"{6 * WIDTH**2 + 4 * WIDTH:,}", f"{WIDTH}"] and rows["lru"][1] == f"{2 * 2 * 128}"
    assert rows["mlp"][1] == "0" and rows["window_attention"][1] == f"{2 * (64 * 128 + 1):,}"
    assert {name: Cost(*rows[name][2:]) for name in REGISTRY} == COSTS
