"""Grids on SLURM and on Ray: the tables of a grid on this machine, also when a node dies on the way.

`tests/clusters/run.sh` starts both with two nodes each and runs these; they are skipped anywhere else.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import fake_cell
import pytest

from memoroids.experiments import cell_launch, cell_process, results, runner, tables, tune
from memoroids.experiments.executors import Executor, Local, make_executor
from memoroids.experiments.figure_grids import Choice, cells
from memoroids.experiments.runner import GridProgress
from memoroids.experiments.tune_file import TuneFile

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif("MEMOROIDS_CLUSTERS" not in os.environ, reason="tests/clusters/run.sh starts the clusters"),
    pytest.mark.filterwarnings("ignore"),  # those of Ray are not ours
]
CHOICE = Choice("figure5-training", segment_lengths=(10, 20, 50), seeds=6, train_episodes=40)
RESOURCES: dict[str, dict[str, Any]] = {"slurm": {"partition": "small", "time": 10}, "ray": {"num_cpus": 1}}
CLUSTERS = tuple(RESOURCES)


class Grid:
    """A grid of 24 cells that train nothing, in a directory that both nodes see."""

    def __init__(self, place: Path):
        self.place, self.root, self.cells = place, place / "grid", cells(CHOICE)
        place.mkdir(exist_ok=True)
        runner.prepare(self.root, CHOICE, self.cells, "memoroids reproduce")

    def executor(self, name: str) -> Executor:
        return make_executor(name, 2, self.root, RESOURCES[name])

    def order(self, orders: dict[int, str]) -> None:
        named = {self.cells[number].name: order for number, order in orders.items()}
        (self.place / "orders.json").write_text(json.dumps(named))

    def starts(self) -> list[dict[str, Any]]:
        path = self.place / "starts"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def ends(self) -> list[str]:
        return sorted((self.place / "ends").read_text().split())

    def tables(self) -> dict[str, bytes]:
        found = results.load(self.root)
        for name, make in tables.TABLES.items():
            tables.write(make(found), self.place / f"{name}.csv")
        return {name: (self.place / f"{name}.csv").read_bytes() for name in tables.TABLES}


@pytest.fixture(scope="module")
def on_this_machine(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The tables of the grid on this machine, and the seconds that it took."""
    grid = Grid(tmp_path_factory.mktemp("local"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_launch, "CELL_PROGRAM", fake_cell.PROGRAM)
        before = time.monotonic()
        runner.run(grid.root, grid.cells, executor=Local(2), watch=lambda moment: None)
    return grid.tables(), time.monotonic() - before


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_grid_has_the_tables_that_it_has_on_this_machine(
    name: str, tmp_path: Path, faked: None, on_this_machine: tuple[dict[str, bytes], float]
):
    grid = Grid(tmp_path)
    before = time.monotonic()
    runner.run(grid.root, grid.cells, executor=grid.executor(name), watch=lambda moment: None)
    seconds = time.monotonic() - before
    assert grid.tables() == on_this_machine[0]
    assert grid.ends() == sorted(cell.name for cell in grid.cells)
    print(f"{name}: {seconds:.0f} s for {len(grid.cells)} cells, {on_this_machine[1]:.0f} s on this machine")


def node_of(pid: int) -> str:
    """The SLURM node of a process."""
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(word for word in words if word.startswith(b"SLURMD_NODENAME=")).partition(b"=")[2].decode()


def end_second_node(name: str) -> None:
    """Ends a node with everything that runs on it, as if its power were cut."""
    if name == "slurm":
        subprocess.run(["pkill", "-9", "-f", "slurmd -N node2"], check=False)
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if b"SLURMD_NODENAME=node2" in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
            except OSError:
                continue
        return
    raylets = subprocess.run(["pgrep", "-f", "raylet/raylet "], capture_output=True, text=True, check=True)
    for pid in map(int, raylets.stdout.split()):
        if b"--head" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_node_that_dies_and_a_killed_process_cost_no_result_and_no_cell_ends_twice(
    name: str, tmp_path: Path, faked: None, on_this_machine: tuple[dict[str, bytes], float]
):
    """The first two cells run on both nodes and hang there; they go on when started again."""
    grid = Grid(tmp_path)
    grid.order({0: "hang once", 1: "hang once"})
    ended: list[bool] = []

    def watch(moment: GridProgress) -> None:
        if len(grid.starts()) == 2 and not ended:
            ended.append(True)
            end_second_node(name)
            time.sleep(2)
            for start in grid.starts():
                if Path(f"/proc/{start['pid']}").exists():
                    os.kill(start["pid"], signal.SIGKILL)

    runner.run(grid.root, grid.cells, executor=grid.executor(name), watch=watch)
    assert ended and grid.tables() == on_this_machine[0]
    assert grid.ends() == sorted(cell.name for cell in grid.cells)
    assert len(grid.starts()) == len(grid.cells) + 2
    assert all(cell_process.status(grid.root, cell) for cell in grid.cells)


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_search_runs_its_trials_there(name: str, tmp_path: Path, faked: None):
    settings = {"env": "RepeatFirstEasy", "memory": "gru", "train_episodes": 40}
    search: dict[str, Any] = {"learning_rate": [1e-3, 1e-2], "width": [8, 16]}
    told = TuneFile("a search", trials=4, seeds=2, prune=False, settings=settings, search=search)
    root = tmp_path / "search"
    executor = make_executor(name, 2, root, RESOURCES[name])
    tune.prepare(root, told)
    study = tune.search(root, told, executor, watch=lambda moment: None)
    assert [row["state"] for row in study.rows()] == ["complete"] * 4
    starts = [json.loads(line)["name"] for line in (tmp_path / "starts").read_text().splitlines()]
    assert sorted(starts) == [f"trial{trial:04d}-seed{seed}" for trial in range(4) for seed in (100, 101)]
    best = study.best()
    assert best is not None
    page = tune.compare(root, told, best[2], executor, command="memoroids tune")
    assert page.exists() and all(len(values) == 3 for values in tune.finals(root).values())
