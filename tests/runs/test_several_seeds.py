"""Several seeds on the host: each is the run of that seed alone, and they go on from where they were cut off."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from test_train import Toy, config, interrupt, learner_of, untimed

from memoroids.acting.evaluation import Evaluation, Evaluations
from memoroids.runs import checkpoint, metrics
from memoroids.runs.checkpoint import CheckpointError
from memoroids.runs.load import evaluate_run, load
from memoroids.runs.progress import Outcome, Progress
from memoroids.runs.run_directory import CHECKPOINTS, CONFIG, METRICS, load_config, seed_dir
from memoroids.runs.seeds import FINAL, TRAIN, environment_seeds
from memoroids.runs.several_seeds import joined
from memoroids.runs.train import train
from metric_rows import row

SEEDS = (3, 4)
SEVERAL = {"seed": 3, "seeds": 2, "checkpoint_every": 2, "num_envs": 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, compiled_once: None) -> tuple[Outcome, list[Progress]]:
    """A run of two seeds that was not interrupted."""
    told: list[Progress] = []
    return train(config(**SEVERAL), tmp_path_factory.mktemp("whole") / "run", watch=told.append), told


def assert_same(a: Path, b: Path, seed: int) -> None:
    assert untimed(metrics.read(a / METRICS)) == untimed(metrics.read(b / METRICS))
    settings = config(**SEVERAL).replace(seed=seed, seeds=1)
    for x, y in zip(learner_of(settings, a), learner_of(settings, b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_each_seed_is_a_run_of_that_seed_alone(whole: tuple[Outcome, list[Progress]], tmp_path: Path):
    outcome, told = whole
    run = outcome.run_dir
    assert {path.name for path in run.iterdir()} == {"config.json", "curve.png", "lock", "seed3", "seed4"}
    names = {"config.json", "metrics.csv", "baseline.json", "curve.png", "summary.json", "checkpoints", "lock"}
    assert all({path.name for path in seed_dir(run, seed).iterdir()} == names for seed in SEEDS)
    assert load_config(run) == config(**SEVERAL)
    for seed in SEEDS:
        train(config(**SEVERAL).replace(seed=seed, seeds=1), tmp_path / f"{seed}")
        assert_same(tmp_path / f"{seed}", seed_dir(run, seed), seed)
    assert untimed(outcome.seeds[0].rows) != untimed(outcome.seeds[1].rows)
    assert list(dict.fromkeys(moment.config.seed for moment in told)) == [3, 4]


def test_the_outcome_is_that_of_all_seeds(whole: tuple[Outcome, list[Progress]]):
    outcome, _ = whole
    assert outcome.final is not None
    finals = [each.final.returns for each in outcome.seeds if each.final is not None]
    np.testing.assert_array_equal(outcome.final.returns, np.concatenate(finals))
    assert len(outcome.final.returns) == 2 * 3
    for i, mean in enumerate(outcome.rows):
        own = [each.rows[i] for each in outcome.seeds]
        assert mean["eval_return"] == pytest.approx((own[0]["eval_return"] + own[1]["eval_return"]) / 2)
        assert mean["episode"] == own[0]["episode"] == own[1]["episode"]


def test_a_seed_is_loaded_and_evaluated_and_all_together_are_refused(whole: tuple[Outcome, list[Progress]]):
    run = whole[0].run_dir
    assert load(seed_dir(run, 4))[0].seed == 4
    assert len(evaluate_run(seed_dir(run, 4), 2, 0, best=True).greedy.returns) == 2
    with pytest.raises(ValueError, match=r"holds 2 runs: name one, as .*seed3"):
        load(run)


@pytest.mark.parametrize(
    ("seed", "stream", "number"),
    [
        pytest.param(3, TRAIN, 3, id="first seed", marks=pytest.mark.slow),
        pytest.param(3, FINAL, 1, id="final evaluation"),
        pytest.param(4, TRAIN, 0, id="second seed begun", marks=pytest.mark.slow),
        pytest.param(4, TRAIN, 3, id="second seed"),
    ],
)
@pytest.mark.one_in(2)
def test_an_interrupted_run_goes_on_with_the_seed_that_was_cut_off_and_those_after_it(
    seed: int,
    stream: int,
    number: int,
    whole: tuple[Outcome, list[Progress]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    settings, run = config(**SEVERAL), tmp_path / "run"
    moment = environment_seeds(seed, stream)(number)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patched:
        patched.setattr(Toy, "at_reset", staticmethod(lambda at: interrupt() if at == moment else None))
        stopped = train(settings, run)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert stopped.final is None and stopped.seeds[-1].config.seed == seed
    assert (seed_dir(run, 4) / CONFIG).exists() == (seed == 4)
    assert (seed_dir(run, 3) / "summary.json").exists() == (seed == 4)

    outcome = train(load_config(run), run, resume=True)
    assert outcome.final is not None and whole[0].final is not None
    np.testing.assert_array_equal(outcome.final.returns, whole[0].final.returns)
    assert [each["eval_return"] for each in outcome.rows] == [each["eval_return"] for each in whole[0].rows]
    for each in SEEDS:
        assert_same(seed_dir(run, each), seed_dir(whole[0].run_dir, each), each)


@pytest.mark.slow
def test_a_run_killed_before_the_second_seed_had_a_checkpoint_goes_on_to_the_same_end(
    whole: tuple[Outcome, list[Progress]], tmp_path: Path
):
    def watch(progress: Progress) -> None:
        if progress.config.seed == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(**SEVERAL), tmp_path / "run", watch=watch)
    newest = checkpoint.counters(checkpoint.latest(seed_dir(tmp_path / "run", 3) / CHECKPOINTS))
    assert newest["episode"] == 6 and not (seed_dir(tmp_path / "run", 4) / CHECKPOINTS).exists()
    train(config(**SEVERAL), tmp_path / "run", resume=True)
    for each in SEEDS:
        assert_same(seed_dir(tmp_path / "run", each), seed_dir(whole[0].run_dir, each), each)


def test_there_is_nothing_to_resume_where_no_run_began(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no run to resume in .*nowhere: it has no config.json"):
        train(config(**SEVERAL), tmp_path / "nowhere", resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_holds_other_seeds_is_refused(whole: tuple[Outcome, list[Progress]]):
    before = json.loads((whole[0].run_dir / CONFIG).read_text())
    with pytest.raises(ValueError, match="holds another run"):
        train(config(**SEVERAL), whole[0].run_dir)
    assert json.loads((whole[0].run_dir / CONFIG).read_text()) == before


def test_seeds_that_have_not_begun_are_left_out_and_there_is_no_final_return(tmp_path: Path):
    settings = config(seeds=3)
    finals = Evaluations(Evaluation(np.ones(2), np.ones(2, int)))
    first = Outcome(finals, [row(10)], tmp_path, settings.replace(seeds=1))
    second = Outcome(None, [], tmp_path, settings.replace(seeds=1, seed=1))
    outcome = joined(settings, tmp_path, [first, second], tmp_path)
    assert outcome.finals is None and outcome.rows == [row(10)] and outcome.seeds == (first, second)
    assert (tmp_path / "curve.png").exists()
    nothing = joined(settings, tmp_path, [second], tmp_path / "absent")
    assert nothing.rows == [] and nothing.finals is None
