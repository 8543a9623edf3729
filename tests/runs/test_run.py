"""A run in the hand: what it shows is what its files hold."""

import builtins
import json

import numpy as np
import pytest

import memoroids
from memoroids.acting.evaluation import Evaluations
from memoroids.runs.load import evaluate_run
from memoroids.runs.metrics import FIELDS, read
from memoroids.runs.run import Run, load
from memoroids.runs.settings import TrainConfig

SETTINGS = TrainConfig.of(
    env="device:RepeatFirstEasy",
    algorithm="ppo",
    memory="gru",
    width=8,
    num_envs=4,
    minibatches=1,
    epochs=1,
    train_episodes=24,
    eval_every=8,
    eval_episodes=4,
    final_episodes=4,
)


@pytest.fixture
def run(finished, tmp_path) -> Run:
    return memoroids.load(finished(SETTINGS, tmp_path / "run"))


def test_metrics_are_the_columns_of_the_file(run):
    rows = read(run.path / "metrics.csv")
    assert list(run.metrics) == list(FIELDS)
    for name, column in run.metrics.items():
        np.testing.assert_array_equal(column, [row[name] for row in rows])
    assert run.finished
    assert run.summary == json.loads((run.path / "summary.json").read_text())
    assert repr(run).startswith(f"Run('{run.path}': ppo, gru on device:RepeatFirstEasy, final return ")
    assert run.seeds == [run]


def test_a_frame_has_the_same_columns_or_says_what_it_needs(run, monkeypatch):
    class Frame:
        def __init__(self, columns):
            self.columns = columns

    real = builtins.__import__

    def without_pandas(name, *arguments, **keywords):
        if name == "pandas":
            raise ImportError("none")
        return real(name, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without_pandas)
        with pytest.raises(ImportError, match=r"needs pandas: pip install pandas, or use run\.metrics"):
            run.frame()
    pandas = pytest.importorskip("pandas")
    assert list(run.frame().columns) == list(FIELDS)
    assert isinstance(run.frame(), pandas.DataFrame)


def test_a_plot_shows_the_curve_and_notebooks_show_the_plot(run):
    figure = run.plot()
    (axes,) = figure.axes
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_array_equal(drawn["evaluation, sampled"], run.metrics["eval_return"])
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_it_is_evaluated_as_by_the_command(run):
    found, want = run.evaluate(4, seed=1), evaluate_run(run.path, 4, 1)
    assert isinstance(found, Evaluations)
    np.testing.assert_array_equal(found.greedy.returns, want.greedy.returns)
    with pytest.raises(ValueError, match="episodes must be at least 1"):
        run.evaluate(0)


def test_its_agent_acts_on_what_the_environment_shows(run):
    agent = run.agent(stochastic=False)
    assert agent.act(2) in range(4)
    assert agent.observation_space.n == 4


def test_a_directory_without_a_run_and_code_that_is_not_trusted_are_refused(tmp_path, run):
    with pytest.raises(ValueError, match="holds no run"):
        load(tmp_path)
    path = run.path / "config.json"
    path.write_text(path.read_text().replace('"memory": "gru"', '"memory": "not_there:make"'))
    with pytest.raises(ValueError, match="names code of its own, not_there:make: pass trust=True"):
        load(run.path)
    assert load(run.path, trust=True).config.network.memory == "not_there:make"
