"""A search from its first trial to the report: trials that fail, are ended early or killed, and several processes."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fake_cell
import pytest
from test_runner import alive, in_another_process, wait_until

from memoroids._util.locks import exclusive
from memoroids.cli.main import main
from memoroids.experiments import cell_process, results, runner, tune
from memoroids.experiments.executors import Local, Refused
from memoroids.experiments.study import Study
from memoroids.experiments.tune import TuneProgress
from memoroids.experiments.tune_file import Range, TuneFile
from memoroids.runs.preset_file import read_preset
from memoroids.runs.settings import TrainConfig

SEARCH: dict[str, Range | list[Any]] = {"learning_rate": Range(1e-4, 1e-2, log=True), "width": [8, 16]}


def told(**changes: Any) -> TuneFile:
    settings = {"env": "RepeatFirstEasy", "memory": "gru", "train_episodes": 40}
    return TuneFile(**{"title": "a search", "trials": 3, "settings": settings, "search": SEARCH} | changes)


class Search:
    """A search in a directory, whose runs do as they are ordered."""

    def __init__(self, place: Path, tuned: TuneFile):
        self.place, self.root, self.tune = place, place / "search", tuned
        tune.prepare(self.root, tuned)

    def order(self, orders: dict[str, str]) -> None:
        (self.place / "orders.json").write_text(json.dumps(orders))

    def run(self, jobs: int = 1) -> tuple[Study, list[str]]:
        """Runs what is left of the trials. Returns the study, and what was said."""
        said: list[str] = []

        def watch(moment: TuneProgress) -> None:
            if moment.news is not None:
                said.append(moment.news)

        return tune.search(self.root, self.tune, Local(jobs), watch=watch), said

    def starts(self) -> list[str]:
        path = self.place / "starts"
        return [json.loads(line)["name"] for line in path.read_text().splitlines()] if path.exists() else []


def test_a_search_ends_with_the_best_settings_as_a_preset_and_a_comparison_on_other_seeds(tmp_path: Path, faked: None):
    search = Search(tmp_path, told())
    search.order({"trial0000-seed100": "reach 0.25", "trial0001-seed100": "reach 0.75", "trial0002-seed100": "raise"})
    study, said = search.run()
    assert [row["state"] for row in study.rows()] == ["complete", "complete", "fail"]
    best = study.best()
    assert best is not None and best[:2] == (1, 0.875)  # what a fake run reaches in the end is 0.125 more
    assert said[1].startswith("trial 1 has 0.875: learning_rate ")
    assert "ZeroDivisionError: divided by nothing" in said[2]

    path = tune.write(search.root, search.tune, study)
    assert path is not None
    assert read_preset(path) == ("tuned", search.tune.settings | best[2])
    found = TrainConfig.of(preset=str(path), seed=5)
    assert found == TrainConfig.of(preset="tuned", **search.tune.settings, **best[2], seed=5)
    assert (search.root / "trials.csv").read_text().count("\n") == 4

    page = tune.compare(search.root, search.tune, best[2], Local(2), command="memoroids tune")
    assert page.exists() and "before and after the search" in page.read_text()
    runs = results.load(search.root / tune.COMPARISON).runs
    assert sorted((run.cell.batching, run.cell.seed) for run in runs) == [
        (side, seed) for side in ("before the search", "found") for seed in range(3)
    ]
    assert {run.cell.config.agent.learning_rate for run in runs if "found" in run.cell.batching} == {
        best[2]["learning_rate"]
    }
    sides = tune.finals(search.root)
    assert {side: len(values) for side, values in sides.items()} == {"found": 3, "before the search": 3}

    before = search.starts()
    assert search.run()[1] == [] and search.starts() == before, "a finished search runs nothing"


def test_the_value_of_a_trial_is_the_mean_over_its_seeds(tmp_path: Path, faked: None):
    search = Search(tmp_path, told(trials=1, seeds=2))
    search.order({"trial0000-seed100": "reach 0.25", "trial0000-seed101": "reach 0.5"})
    study, _ = search.run()
    assert study.best() is not None and study.rows()[0]["value"] == pytest.approx(0.5)
    assert search.starts() == ["trial0000-seed100", "trial0000-seed101"]


def test_a_trial_that_is_worse_than_most_is_ended_early(tmp_path: Path, faked: None):
    search = Search(tmp_path, told(trials=6))
    orders = {f"trial{i:04d}-seed100": f"reach {0.5 + 0.1 * i}" for i in range(5)}
    search.order(orders | {"trial0005-seed100": "stay at 0.1"})
    study, said = search.run()
    assert [row["state"] for row in study.rows()] == ["complete"] * 5 + ["pruned"]
    assert said[-1].startswith("trial 5 ended early, worse than most")


class Full(Local):
    """Takes no second process for a while, or none at all."""

    def __init__(self, jobs: int, refusals: int):
        super().__init__(jobs)
        self.refusals, self.taken = refusals, 0

    def start(self, *task: Any) -> Any:
        if self.refusals and self.taken:
            self.refusals -= 1
            raise Refused("SLURM refuses a job: too many")
        self.taken += 1
        return super().start(*task)


def test_what_an_engine_does_not_take_now_it_is_asked_again(
    tmp_path: Path, faked: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runner, "REFUSED_SECONDS", 0.1)
    search, said = Search(tmp_path, told(trials=3)), []
    study = tune.search(
        search.root, search.tune, Full(2, 1), watch=lambda moment: said.append(moment.news) if moment.news else None
    )
    assert [row["state"] for row in study.rows()] == ["complete"] * 3 and len(search.starts()) == 3
    assert said.count("SLURM refuses a job: too many; trying again in 0 s") == 1


def test_an_engine_that_takes_nothing_ends_the_search(tmp_path: Path, faked: None):
    search, full = Search(tmp_path, told(trials=3)), Full(2, 1)
    full.taken = 1
    with pytest.raises(Refused, match="too many"):
        tune.search(search.root, search.tune, full, watch=lambda moment: None)
    assert [row["state"] for row in search.run()[0].rows()] == ["complete"] * 3


PARENT = """
from pathlib import Path
import fake_cell
from test_tune import told
from memoroids.experiments import cell_launch, tune
from memoroids.experiments.executors import Local
cell_launch.CELL_PROGRAM = fake_cell.PROGRAM
tune.search(Path({root!r}), told(trials=4), Local(1), watch=lambda moment: None)
"""


def test_two_processes_share_a_search_and_what_a_killed_one_leaves_is_gone_on_with(tmp_path: Path, faked: None):
    search = Search(tmp_path, told(trials=4))
    search.order({"trial0000-seed100": "hang once"})
    with in_another_process(PARENT.format(root=str(search.root))) as parent:
        try:
            wait_until(lambda: search.starts() == ["trial0000-seed100"])
            study, _ = search.run()  # runs the others while the first hangs in the other process
            assert [row["state"] for row in study.rows()] == ["running"] + ["complete"] * 3
            tried = study.rows()[0]
        finally:
            parent.kill()
    pids = [json.loads(line)["pid"] for line in (tmp_path / "starts").read_text().splitlines()]
    wait_until(lambda: not any(map(alive, pids)))
    study, said = search.run()
    assert len(said) == 1 and study.rows()[0] == tried | {"state": "complete", "value": study.rows()[0]["value"]}
    assert sorted(search.starts()) == ["trial0000-seed100"] * 2 + [f"trial000{i}-seed100" for i in (1, 2, 3)]


def test_ctrl_c_ends_the_runs_and_the_search_goes_on_later(tmp_path: Path, faked: None):
    search = Search(tmp_path, told(trials=2))
    search.order({"trial0000-seed100": "hang once"})

    def watch(moment: TuneProgress) -> None:
        if search.starts():
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        tune.search(search.root, search.tune, Local(1), watch=watch)
    pids = [json.loads(line)["pid"] for line in (tmp_path / "starts").read_text().splitlines()]
    assert not any(map(alive, pids))
    study, _ = search.run()
    assert [row["state"] for row in study.rows()] == ["complete"] * 2


def test_a_search_in_which_nothing_finishes_has_no_best(tmp_path: Path, faked: None):
    search = Search(tmp_path, told(trials=2))
    search.order({f"trial000{i}-seed100": "refuse" for i in range(2)})
    study, said = search.run()
    assert study.best() is None and tune.write(search.root, search.tune, study) is None
    assert all(fake_cell.NASTY in line for line in said)
    assert (search.root / "trials.csv").exists() and not (search.root / "best.toml").exists()


def test_a_directory_that_holds_something_else_is_refused(tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is not an empty directory and holds no search"):
        tune.prepare(tmp_path / "full", told())
    tune.prepare(tmp_path / "mine", told())
    tune.prepare(tmp_path / "mine", told())
    with pytest.raises(ValueError, match="holds another search"):
        tune.prepare(tmp_path / "mine", told(trials=9))
    (tmp_path / "mine" / tune.DESCRIPTION).write_text("{")
    with pytest.raises(ValueError, match="is not a valid description of a search"):
        tune.prepare(tmp_path / "mine", told())


def test_the_programs_of_two_processes_are_cached_apart(tmp_path: Path, faked: None):
    search = Search(tmp_path, told(trials=1))
    search.run()
    (start,) = [json.loads(line) for line in (tmp_path / "starts").read_text().splitlines()]
    assert start["cache"].endswith("cache/0-0") and cell_process.CACHE == "cache"


def test_what_is_done_of_a_trial_is_not_done_again_when_it_goes_on(tmp_path: Path, faked: None):
    search = Search(tmp_path, told(trials=1, seeds=3))
    names = [f"trial0000-seed{seed}" for seed in (100, 101, 102)]
    search.order({names[0]: "reach 0.25", names[1]: "hang once", names[2]: "reach 0.75"})

    def watch(moment: TuneProgress) -> None:
        if len(search.starts()) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune.search(search.root, search.tune, Local(1), watch=watch)
    search.order({names[1]: "reach 0.5", names[2]: "reach 0.75"})
    study, _ = search.run()
    assert search.starts() == [names[0], names[1], names[1], names[2]]
    assert study.rows()[0]["value"] == pytest.approx(0.5 + 0.125)


@pytest.mark.parametrize("order", ["die", "be interrupted"])
def test_a_run_that_is_ended_from_outside_is_started_again_once(order: str, tmp_path: Path, faked: None):
    search = Search(tmp_path, told(trials=2))
    search.order({"trial0000-seed100": f"{order} once", "trial0001-seed100": order})
    study, said = search.run()
    assert [row["state"] for row in study.rows()] == ["complete", "fail"]
    assert len(search.starts()) == 4 and said[1].startswith("trial 1 failed")


def test_settings_that_do_not_go_together_fail_their_trial_alone(tmp_path: Path, faked: None):
    settings = {"env": "device:RepeatFirstEasy", "memory": "gru", "batch_size": 1_000}
    search = Search(tmp_path, told(trials=8, settings=settings, search={"tapes": Range(1, 4)}))
    study, said = search.run()
    states = {row["tapes"]: row["state"] for row in study.rows()}
    assert len(study.rows()) == 8 and study.running() == 0
    assert states.get(3, "fail") == "fail" and "complete" in states.values(), (states, said)


def test_a_preset_of_ones_own_is_part_of_what_is_found(tmp_path: Path, faked: None):
    (tmp_path / "base.toml").write_text("preset = 'default'\n[settings]\nwidth = 32\nlambda_ = 0.5\n")
    search = Search(tmp_path, told(trials=1, preset=str(tmp_path / "base.toml"), search={"width": [8, 16]}))
    study, _ = search.run()
    path = tune.write(search.root, search.tune, study)
    assert path is not None
    found = read_preset(path)
    assert found.base == "default" and found.settings["lambda_"] == 0.5 and found.settings["width"] in (8, 16)


def test_processes_that_begin_a_search_at_the_same_time_share_it(tmp_path: Path):
    for attempt in range(5):
        root = tmp_path / str(attempt)
        with ThreadPoolExecutor(4) as pool:
            for each in [pool.submit(tune.prepare, root, told()) for _ in range(4)]:
                each.result()


def test_the_command_says_what_was_found_and_how_to_use_it(
    tmp_path: Path, faked: None, capsys: pytest.CaptureFixture[str]
):
    file, root = tmp_path / "mine.toml", tmp_path / "place" / "search"
    settings = "[settings]\nenv = 'RepeatFirstEasy'\nmemory = 'gru'\ntrain_episodes = 40\n"
    file.write_text(f"trials = 2\n{settings}[search]\nwidth = [8, 16]\n")
    (tmp_path / "place").mkdir()
    orders = {"trial0000-seed100": "reach 0.25", "trial0001-seed100": "reach 0.75"}
    orders |= {f"found-seed{seed}": "reach 0.5" for seed in range(3)}
    (tmp_path / "place" / "orders.json").write_text(json.dumps(orders))
    main(["tune", str(file), "--jobs", "2", "--output", str(root)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"mine: 2 trials, 2 at a time -> {root}"
    assert "best: trial 1, return 0.875; comparing on seeds 0 to 2" in lines
    assert lines[-2:] == [
        f"use: memoroids train --preset {root}/best.toml",
        f"report: {root}/comparison/report/index.html",
    ]
    assert any(line.startswith("before the search: ") for line in lines)

    with exclusive(root / "comparison" / "lock"):
        main(["tune", str(file), "--jobs", "2", "--output", str(root)])
    assert capsys.readouterr().out.splitlines()[-1] == "another process compares what was found"
