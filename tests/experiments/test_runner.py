"""Running a grid: which cells are started, skipped, recorded and ended, and what is refused. Cells are `fake_cell`s."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_cell
import pytest

from memoroids import __version__
from memoroids.experiments import cell_process, results, runner, tables
from memoroids.experiments.cell_process import CellProcess
from memoroids.experiments.executors import Local, Refused
from memoroids.experiments.figure_grids import Choice, cells
from memoroids.experiments.grid import Cell
from memoroids.experiments.grid_file import GridFile, grid_cells
from memoroids.experiments.runner import GridProgress
from memoroids.runs.run_directory import locked

CHOICE = Choice("figure5-training", segment_lengths=(10,), seeds=2, train_episodes=40)


class Grid:
    """A grid of four cells in a directory, with their orders."""

    def __init__(self, place: Path, choice: Choice = CHOICE):
        self.place, self.root, self.choice = place, place / "grid", choice
        self.cells = cells(choice)
        self.names = [cell.name for cell in self.cells]
        place.mkdir(exist_ok=True)
        runner.prepare(self.root, choice, self.cells, "memoroids reproduce")

    def order(self, **what: str) -> None:
        """Sets the orders of cells, named c and their number; the others run normally."""
        (self.place / "orders.json").write_text(json.dumps({self.names[int(k[1:])]: v for k, v in what.items()}))

    def run(
        self, *, jobs: int = 2, watch: Callable[[GridProgress], None] = lambda _: None, **options: Any
    ) -> list[str]:
        """Runs the unfinished cells. Returns those that were started, in order, as c and their number."""
        before = len(self.starts())
        runner.run(self.root, self.cells, executor=Local(jobs), watch=watch, **options)
        return [f"c{self.names.index(start['name'])}" for start in self.starts()[before:]]

    def starts(self) -> list[dict[str, Any]]:
        path = self.place / "starts"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def ends(self) -> list[Any]:
        """For each cell its status, or the reason of its failure."""
        found = [cell_process.status(self.root, cell) for cell in self.cells]
        return [end and end.get("reason", end["status"]) for end in found]

    def tables(self) -> dict[str, bytes]:
        """Every table of the report as CSV."""
        found = results.load(self.root)
        for name, make in tables.TABLES.items():
            tables.write(make(found), self.place / f"{name}.csv")
        return {name: (self.place / f"{name}.csv").read_bytes() for name in tables.TABLES}


@pytest.fixture
def grid(tmp_path: Path, faked: None) -> Grid:
    return Grid(tmp_path)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")  # a zombie whose parent has not waited for it yet
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_cell_is_run_once_in_the_order_of_the_grid_and_a_finished_grid_starts_nothing(grid: Grid):
    seen: list[GridProgress] = []
    assert grid.run(jobs=1, watch=seen.append) == ["c0", "c1", "c2", "c3"]
    assert grid.ends() == ["done"] * 4
    assert (seen[0].done, seen[0].total, seen[0].running, seen[0].seconds_left) == (0, 4, [], None)
    assert (seen[-1].done, seen[-1].failed, seen[-1].running, seen[-1].seconds_left) == (4, 0, [], 0)
    assert [moment.done for moment in seen if moment.news is not None] == [1, 2, 3, 4]
    assert [moment.news for moment in seen if moment.news is not None] == [f"{name} done in 2 s" for name in grid.names]
    assert max(len(moment.running) for moment in seen) <= 1

    before = grid.tables()
    assert grid.run(watch=seen.append) == []
    assert (seen[-1].done, seen[-1].total) == (4, 4)
    assert grid.tables() == before


def test_every_slot_has_a_cache_and_cores_of_its_own(grid: Grid):
    grid.run()
    starts = grid.starts()
    assert {start["cache"] for start in starts} == {"cache/0", "cache/1"}
    by_slot = {start["cache"]: start["cores"] for start in starts}
    assert all(start["cores"] == by_slot[start["cache"]] for start in starts)
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1:
        assert sorted(itertools.chain(*by_slot.values())) == sorted(os.sched_getaffinity(0))


def test_a_cell_that_fails_is_marked_with_its_reason_and_the_rest_goes_on_until_it_is_tried_again(grid: Grid):
    grid.order(c0="refuse", c1="raise", c2="be silent")
    seen: list[GridProgress] = []
    assert sorted(grid.run(watch=seen.append)) == ["c0", "c1", "c2", "c3"]
    raised = "exit status 1: ZeroDivisionError: divided by nothing"
    assert grid.ends() == [fake_cell.NASTY, raised, "exit status 3: no output", "done"]
    news = {moment.news for moment in seen}
    assert f"{grid.names[1]} failed: {raised}" in news
    assert (seen[-1].done, seen[-1].failed) == (1, 3)
    log = (cell_process.cell_dir(grid.root, grid.cells[1]) / "log.txt").read_text()
    assert log.startswith("about to fail\nTraceback")
    assert [(gap.cell.name, gap.reason) for gap in results.load(grid.root).gaps][:2] == [
        (grid.names[0], fake_cell.NASTY),
        (grid.names[1], raised),
    ]

    assert grid.run(watch=seen.append) == []
    assert (seen[-1].done, seen[-1].failed) == (1, 3)
    grid.order()
    assert sorted(grid.run(retry=True)) == ["c0", "c1", "c2"]
    assert grid.ends() == ["done"] * 4


def test_a_cell_that_is_killed_is_started_again_once_and_once_more_at_the_next_start(grid: Grid):
    grid.order(c0="die once", c1="die", c2="be interrupted once", c3="be interrupted")
    seen: list[GridProgress] = []
    assert sorted(grid.run(watch=seen.append)) == ["c0", "c0", "c1", "c1", "c2", "c2", "c3", "c3"]
    assert grid.ends() == ["done", "killed by signal 9", "done", "interrupted"]
    news = [moment.news for moment in seen]
    for name, how in zip(grid.names, ["killed by signal 9"] * 2 + ["interrupted"] * 2, strict=True):
        assert news.count(f"{name} was {how}; restarting it") == 1
    assert f"{grid.names[1]} failed: killed by signal 9" in news
    assert f"{grid.names[3]} failed: interrupted" in news

    grid.order(c3="raise")
    assert sorted(grid.run()) == ["c1", "c3"]
    assert grid.ends() == ["done", "done", "done", "exit status 1: ZeroDivisionError: divided by nothing"]
    assert grid.run() == []


ON_DEVICE = Choice("popgym", tasks=("RepeatFirstEasy",), memories=("lru", "gru"), seeds=3)


def test_seeds_on_device_share_a_process_if_asked_to(tmp_path: Path, faked: None):
    grid = Grid(tmp_path, ON_DEVICE)
    names = [(cell.memory, cell.seed) for cell in grid.cells]
    assert names == [("lru", 0), ("gru", 0), ("lru", 1), ("gru", 1), ("lru", 2), ("gru", 2)]
    assert grid.run(jobs=1, together=2) == ["c0", "c2", "c4", "c1", "c3", "c5"]
    assert [start["together"] for start in grid.starts()] == [2, 2, 1, 2, 2, 1]
    assert grid.ends() == ["done"] * 6


def test_on_the_host_every_run_has_its_own_process(grid: Grid):
    grid.run(together=2)
    assert [start["together"] for start in grid.starts()] == [1] * 4


@pytest.mark.parametrize("order", ["die once", "raise once", "be interrupted once"])
def test_what_a_shared_process_leaves_unfinished_is_run_cell_by_cell(order: str, tmp_path: Path, faked: None):
    grid = Grid(tmp_path, ON_DEVICE)
    grid.order(c2=order)
    seen: list[GridProgress] = []
    started = grid.run(jobs=1, together=3, watch=seen.append)
    # The process ends in its second cell; the third was not begun. Both are then run alone, before the next group.
    assert started == ["c0", "c2", "c2", "c4", "c1", "c3", "c5"]
    assert grid.ends() == ["done"] * 6
    assert sum("restarting it" in (moment.news or "") for moment in seen) == 2


def test_a_cell_that_fails_alone_too_is_marked_and_the_others_of_its_process_are_done(tmp_path: Path, faked: None):
    grid = Grid(tmp_path, ON_DEVICE)
    grid.order(c2="raise", c3="die")
    grid.run(jobs=1, together=3)
    raised = "exit status 1: ZeroDivisionError: divided by nothing"
    assert grid.ends() == ["done", "done", raised, "killed by signal 9", "done", "done"]


class Stubborn:
    """A process whose user presses Ctrl-C again while it is ended."""

    killed = waited = False

    def poll(self) -> int | None:
        return None

    def kill(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        self.killed = True

    def wait(self) -> None:
        self.waited = True


def test_a_second_ctrl_c_keeps_no_process_alive():
    cells, processes = (), [Stubborn(), Stubborn()]
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with (
        pytest.raises(KeyboardInterrupt),
        runner.terminating(lambda: [CellProcess(cells, each, 0, 1, 0.0) for each in processes]),
    ):
        os.kill(os.getpid(), signal.SIGTERM)  # a shell may let what it starts in the background ignore the other
        time.sleep(1)
    assert all(each.killed and each.waited for each in processes)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_an_interrupted_grid_leaves_no_process_and_ends_with_the_tables_of_an_uninterrupted_one(how: str, grid: Grid):
    whole = Grid(grid.place / "whole")
    whole.run()
    grid.order(c1="hang once")
    handler = signal.getsignal(signal.SIGTERM)

    def watch(moment: GridProgress) -> None:
        # The cell that hangs has done one evaluation of four, and the other slot's cell is done.
        if moment.done and (grid.cells[1], 0.25) in moment.running:
            if how == "Ctrl-C":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        grid.run(watch=watch)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert not any(alive(start["pid"]) for start in grid.starts())
    assert grid.ends()[:2] == ["done", None]
    assert {gap.cell.name: gap.reason for gap in results.load(grid.root).gaps}[grid.names[1]] == "not finished"
    assert grid.tables() != whole.tables()

    again = grid.run()
    assert "c1" in again and "c0" not in again and len(again) == len(set(again))
    assert grid.ends() == ["done"] * 4
    assert grid.tables() == whole.tables()
    assert [name for name, text in whole.tables().items() if not text] == [
        "against_published",
        "records",
        "memories",
        "memory_pairs",
        "performance_profiles",
        "longer_against_shorter",
    ]


def test_a_process_that_is_refused_is_tried_again_while_others_run_and_ends_the_grid_if_none_does(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runner, "REFUSED_SECONDS", 0.1)

    class Full(Local):
        """Takes one process at a time, or none."""

        limit = 1

        def start(self, directories: Any, slot: int, cache: Path) -> Any:
            alive = [each for each in handles if each.poll() is None]
            if len(alive) >= self.limit:
                raise Refused("the queue is full")
            handles.append(super().start(directories, slot, cache))
            return handles[-1]

    handles: list[Any] = []
    seen: list[GridProgress] = []
    runner.run(grid.root, grid.cells, executor=Full(2), watch=seen.append)
    assert grid.ends() == ["done"] * 4 and len(handles) == 4
    assert any((moment.news or "").startswith("the queue is full; trying again") for moment in seen)

    other = Grid(grid.place / "other")
    full = Full(2)
    full.limit = 0
    with pytest.raises(ValueError, match="the queue is full"):
        runner.run(other.root, other.cells, executor=full, watch=lambda moment: None)


def test_a_cell_whose_run_another_process_still_writes_keeps_its_files(grid: Grid):
    run = cell_process.cell_dir(grid.root, grid.cells[0]) / "run"
    with locked(run):
        (run / "written").touch()
        cell_process.make_ready(grid.root, grid.cells[:1])
        assert (run / "written").exists()
    cell_process.make_ready(grid.root, grid.cells[:1])
    assert not run.exists()


def test_a_cell_that_shared_a_log_has_its_own_when_it_runs_alone(tmp_path: Path, faked: None):
    grid = Grid(tmp_path, ON_DEVICE)
    pair = [grid.cells[0], grid.cells[2]]
    first, second = cell_process.make_ready(grid.root, pair)
    assert (second / "log.txt").is_symlink()
    cell_process.make_ready(grid.root, pair[1:])
    assert not (second / "log.txt").is_symlink() and first != second


def test_an_agent_of_the_users_own_is_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    settings = {"algorithm": "examples.own_agent:A2C", "steps": 10}
    file = GridFile("own", seeds=1, preset="default", settings=settings)
    found = grid_cells(file)
    runner.prepare(tmp_path, file, found, "memoroids grid")
    runner.prepare(tmp_path, file, found, "memoroids grid")
    (directory,) = cell_process.make_ready(tmp_path, found)
    fake_cell.finish(directory, {"status": "done", "seconds": 1.0})
    end = cell_process.status(tmp_path, found[0])
    assert end is not None and end["status"] == "done"


PARENT = """
from pathlib import Path
import fake_cell
from test_runner import CHOICE
from memoroids.experiments import cell_launch, runner
from memoroids.experiments.executors import Local
from memoroids.experiments.figure_grids import cells
cell_launch.CELL_PROGRAM = fake_cell.PROGRAM
runner.run(Path({root!r}), cells(CHOICE), executor=Local(2), watch=lambda moment: None)
"""


def in_another_process(program: str) -> subprocess.Popen[bytes]:
    """Starts a process that runs `program`, which can import what the tests of grids can."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL)


def test_a_grid_that_is_killed_leaves_no_process_and_goes_on_where_it_was(grid: Grid):
    grid.order(c0="hang once", c1="hang once")
    with in_another_process(PARENT.format(root=str(grid.root))) as parent:
        try:
            wait_until(lambda: len(grid.starts()) == 2)
            pids = [start["pid"] for start in grid.starts()]
            assert all(map(alive, pids))
            with pytest.raises(ValueError, match=rf"process {parent.pid}, started \S+ is running the grid"):
                grid.run()
            assert all(map(alive, pids))
        finally:
            parent.kill()
    wait_until(lambda: not any(map(alive, pids)))
    assert sorted(grid.run()) == ["c0", "c1", "c2", "c3"]
    assert grid.ends() == ["done"] * 4


def test_a_second_process_is_refused_in_one_line_and_starts_nothing(grid: Grid):
    with runner._lock(grid.root), pytest.raises(ValueError) as error:
        grid.run()
    assert str(grid.root) in str(error.value) and "\n" not in str(error.value)
    assert grid.starts() == []
    assert len(grid.run()) == 4


@pytest.mark.parametrize("damage", ["settings", "no settings", "no end", "half an end"])
def test_a_cell_whose_settings_or_end_are_not_the_grids_is_run_again(damage: str, grid: Grid):
    grid.run()
    directory = cell_process.cell_dir(grid.root, grid.cells[2])
    settings, end = directory / "settings.json", directory / "cell.json"
    if damage == "settings":
        settings.write_text(settings.read_text().replace('"train_episodes": 40', '"train_episodes": 30'))
    elif damage == "no settings":
        settings.unlink()
    elif damage == "no end":
        end.unlink()
    else:
        end.write_text(end.read_text()[:-5])
    (directory / "run" / "leftover").touch()
    assert [gap.reason for gap in results.load(grid.root).gaps] == ["not finished"]
    assert grid.run() == ["c2"]
    assert grid.ends() == ["done"] * 4
    assert not (directory / "run" / "leftover").exists()


def prepared(root: Path, choice: Choice) -> list[Cell]:
    found = cells(choice)
    runner.prepare(root, choice, found, "another command")
    return found


def test_a_directory_that_holds_something_else_is_refused_and_left_as_it_is(grid: Grid, tmp_path: Path):
    before = (grid.root / "grid.json").read_bytes()
    prepared(grid.root, CHOICE)
    for other in (Choice("figure5-training", segment_lengths=(10,), seeds=3, train_episodes=40), Choice("figure4")):
        with pytest.raises(ValueError) as error:
            prepared(grid.root, other)
        assert str(error.value) == f"{grid.root} holds another grid (memoroids reproduce): choose another --output"
    assert (grid.root / "grid.json").read_bytes() == before

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ValueError) as error:
        prepared(tmp_path / "full", CHOICE)
    refused = f"{tmp_path / 'full'} is not an empty directory and holds no grid: choose another --output"
    assert str(error.value) == refused
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]

    with pytest.raises(ValueError, match="is not an empty directory"):
        prepared(tmp_path / "full" / "thesis.tex", CHOICE)

    (tmp_path / "empty").mkdir()
    prepared(tmp_path / "empty", CHOICE)
    prepared(tmp_path / "deep" / "inside", CHOICE)


def test_a_grid_from_before_an_option_was_added_goes_on(grid: Grid):
    path = grid.root / "grid.json"
    found = json.loads(path.read_text())
    del found["choice"]["first_seed"]
    path.write_text(json.dumps(found))
    assert prepared(grid.root, CHOICE) == grid.cells


def test_a_grid_of_another_version_is_refused_with_both_versions_named(grid: Grid):
    path = grid.root / "grid.json"
    path.write_text(path.read_text().replace(f'"version": "{__version__}"', '"version": "0.0.1"', 1))
    for use in (lambda: prepared(grid.root, CHOICE), lambda: results.load(grid.root)):
        with pytest.raises(ValueError) as error:
            use()
        assert "memoroids 0.0.1" in str(error.value) and f"this is {__version__}" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", f'{{"version": "{__version__}"}}'])
def test_a_damaged_grid_is_refused_in_one_line(text: str, grid: Grid):
    (grid.root / "grid.json").write_text(text)
    for use in (lambda: prepared(grid.root, CHOICE), lambda: results.load(grid.root)):
        with pytest.raises(ValueError) as error:
            use()
        assert str(grid.root / "grid.json") in str(error.value) and "\n" not in str(error.value)
