"""What a run shows: in every encoding, paths as they are, and the command that resumes an interrupted one."""

import io
import json
import os
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from noisy_toy import ENV, TINY

from memoroids.acting.evaluation import Evaluation, Evaluations
from memoroids.cli.main import main
from memoroids.cli.progress_display import ProgressDisplay
from memoroids.runs import metrics
from memoroids.runs import train as training
from memoroids.runs.build import build
from memoroids.runs.progress import Counters, Outcome, Progress
from memoroids.runs.run_directory import load_config
from memoroids.runs.settings import TrainConfig
from metric_rows import row

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_run_does_not_fail_for_letters_that_cannot_be_shown(encoding: str, terminal: Callable[[str], io.BytesIO]):
    shown = terminal(encoding)
    main(["train", "--env", ENV, "--memory", "mlp", "--updates-per-episode", "0", *TINY])
    said = shown.getvalue().decode(encoding)
    assert "4/4 episodes" in said and "final return" in said


@pytest.mark.parametrize("name", ["a[b]:cat: d", "a[/b]", "my run's"])
def test_paths_are_shown_as_they_are_and_quoted_in_commands(name: str, asked: Any, capsys: pytest.CaptureFixture[str]):
    main(["train", "--run-dir", name])
    said = capsys.readouterr().out
    assert f"written │ {name}/metrics.csv, {name}/curve.png" in " ".join(said.split())
    assert commands(said)[0] == ["memoroids", "evaluate", name, "--episodes", "100"]
    concluded(TrainConfig.of(seeds=2), [0.5], 0.5, Path(name))
    assert commands(capsys.readouterr().out)[0] == ["memoroids", "compare", name]
    config = TrainConfig.of(env="my_module:Mine-v0")
    ProgressDisplay(config, Path(name), resume=False).conclude(Outcome(None, [], Path(name), config), 1.0)
    assert commands(capsys.readouterr().out) == [["memoroids", "resume", name, "--trust"]]


def commands(said: str) -> list[list[str]]:
    """The words of the commands that the closing table names, as a shell reads them."""
    return [shlex.split(line.removeprefix("try: ")) for line in said.splitlines() if line.startswith("try: ")]


def test_an_interrupted_run_is_resumed_with_the_command_that_it_ends_with(
    ran: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, workplace: Path
):
    def show(self: ProgressDisplay, moment: Any) -> None:
        if moment.row is not None:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(ProgressDisplay, "show", show)
        with pytest.raises(SystemExit) as stop:
            main(["train", "--env", ENV, "--memory", "mlp", "--run-dir", "run", *TINY])
    assert stop.value.code == 130
    said = capsys.readouterr()
    assert said.err == (
        "memoroids: the run ends with a checkpoint as soon as the episodes and updates in progress end; once more ends "
        "it at once, without one\n"
    )
    assert "try: memoroids resume run\n" in said.out
    assert [row["episode"] for row in metrics.read(workplace / "run" / "metrics.csv")] == [2]
    assert "finished" in ran("resume", "run")
    assert [row["episode"] for row in metrics.read(workplace / "run" / "metrics.csv")] == [2, 4]


@pytest.mark.parametrize(
    "options",
    [
        ["--env", ENV],
        ["--env", "workplace_own:make", "--env-options", "seen", "a b", "more", "[1, 2]"],
        [
            "--env",
            "CartPole-v0",
            "--algorithm",
            "ppo",
            "--steps",
            "None",
            "--random-episodes",
            "0",
            "--ppo.minibatches",
            "1",
        ],
        ["--env", "RepeatFirstEasy"],
    ],
    ids=lambda options: options[1],
)
@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
@pytest.mark.one_in(2)
def test_the_commands_that_a_run_ends_with_run_when_they_are_pasted(
    options: list[str], workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (workplace / "workplace_own.py").write_text(
        "import gymnasium as gym\ndef make(seen, more):\n    return gym.make('test-cli/Toy-v0')\n"
    )
    run = "my runs/it's"
    main(["train", "--memory", "mlp", *TINY, *options, "--run-dir", run])
    pasted = [command[1:] for command in commands(capsys.readouterr().out)]
    assert [command[0] for command in pasted] == ["evaluate", "train"]
    main(pasted[0])
    assert "mean return" in capsys.readouterr().out
    with monkeypatch.context() as patched:
        asked: list[TrainConfig] = []
        patched.setattr(
            training, "train", lambda config, *rest, **more: asked.append(build_of(config)) or stopped(config)
        )
        with pytest.raises(SystemExit):
            main(pasted[1])
    before = load_config(Path(run))
    assert (asked[0].env, asked[0].algorithm) == (before.env, before.algorithm)
    assert asked[0].network.memory == "lru"


def build_of(config: TrainConfig) -> TrainConfig:
    """`config`, after its run was built."""
    build(config.replace(eval_episodes=1)).close()
    return config


def stopped(config: TrainConfig) -> Outcome:
    return Outcome(None, [], Path("my runs/it's"), config)


def test_the_refusal_to_overwrite_a_run_names_a_command_that_resumes_it(
    ran: Callable[..., str], refused: Callable[..., str], workplace: Path
):
    start = ["train", "--env", ENV, "--memory", "mlp", "--run-dir", "my runs/it's", *TINY]
    ran(*start)
    said = refused(*start)
    command = re.findall(r"`memoroids (.*)`", said)[0]
    assert "finished" in ran(*shlex.split(command))


def rows_of(*returns: float) -> list[dict[str, float]]:
    return [row(10 * (i + 1), eval_return=value) for i, value in enumerate(returns)]


def concluded(config: TrainConfig, returns: list[float], final: float, run_dir: Path, **more: Any) -> None:
    """Lets the display conclude a run with these evaluations and this final return."""
    finals = Evaluations(Evaluation(np.full(10, final), np.full(10, 5)))
    display = ProgressDisplay(config, run_dir, resume=False)
    display.conclude(Outcome(finals, rows_of(*returns), run_dir, config, **more), 1.0)


def test_a_threshold_is_named_where_there_is_one_and_only_there(capsys: pytest.CaptureFixture[str]):
    curve = [0.2, *[9.5] * 6]
    for target, said in ((9.0, "9 reached and kept │ after 20 "), (10.0, "10 reached and kept │ no"), (None, None)):
        concluded(TrainConfig.of(target_return=target), curve, 9.5, Path("run"))
        shown = " ".join(capsys.readouterr().out.split())
        assert (said in shown) if said else ("reached" not in shown and "0.95" not in shown)


def test_the_own_threshold_of_an_environment_is_what_a_run_reports(ran: Callable[..., str], workplace: Path):
    short = [*TINY, "--random-episodes", "0", "--train-episodes", "1", "--updates-per-episode", "0"]
    assert "475 reached and kept │ no" in ran(
        "train", "--env", "CartPole-v1", "--memory", "mlp", "--run-dir", "a", *short
    )
    assert "5 reached and kept" in ran(
        "train", "--env", "CartPole-v1", "--run-dir", "b", "--target-return", "5", *short
    )
    assert "reached" not in ran("train", "--env", ENV, "--memory", "mlp", "--run-dir", "c", *short)
    assert "target after" in ran("compare", "a", "c") and "target after" not in ran("compare", "c")
    told = [json.loads((workplace / name / "summary.json").read_text()) for name in "abc"]
    assert [each["target_return"] for each in told] == [475, 5, None]


def test_a_policy_that_is_sampled_from_is_shown_in_both_ways(ran: Callable[..., str], workplace: Path):
    small = ["--steps", "None", "--train-episodes", "4", "--num-envs", "4", "--eval-every", "4", "--width", "8"]
    small += ["--env", ENV, "--memory", "mlp", "--algorithm", "ppo", "--eval-episodes", "2", "--final-episodes", "3"]
    for flags, first, second in (([], "sampled", "greedy"), (["--no-stochastic"], "greedy", "sampled")):
        said = ran("train", *small, *flags, "--run-dir", first)
        assert re.search(rf"return \+\S+ {first}, \+\S+ {second} ", said), said
        assert said.index(f"final return, {first}, 3 fresh") < said.index(f"final return, {second}, 3 fresh")
        assert f"evaluation return, {first}" in said and f"evaluation return, {second}" not in said
        said = ran("evaluate", first, "--episodes", "3")
        assert [each.split()[-1] for each in said.split(" episodes of")[:2]] == [first, second]
    swapped = ran("evaluate", "sampled", "--episodes", "3", "--no-stochastic")
    assert swapped == ran("evaluate", "greedy", "--episodes", "3") != ran("evaluate", "sampled", "--episodes", "3")


def test_a_policy_without_draws_cannot_be_sampled(ran: Callable[..., str], refused: Callable[..., str]):
    ran("train", "--env", ENV, "--memory", "mlp", "--run-dir", "run", *TINY)
    said = "stochastic True is for agents that sample from their policy, such as ppo: dqn does not"
    assert said in refused("evaluate", "run", "--stochastic")
    assert said in refused("train", "--env", ENV, "--stochastic")
    assert ran("evaluate", "run", "--no-stochastic").count("mean return") == 1


@pytest.mark.parametrize(("algorithm", "shown"), [("dqn", True), ("pqn", True), ("ppo", False)])
def test_epsilon_is_shown_for_agents_that_explore_by_it(
    algorithm: str, shown: bool, capsys: pytest.CaptureFixture[str]
):
    config = TrainConfig.of(algorithm=algorithm)
    counters = Counters(random=config.budget.random_episodes, episode=20)
    ProgressDisplay(config, Path("run"), resume=False).show(Progress(config, counters, row(20), None))
    said = capsys.readouterr().out
    assert "loss" in said and ("ε" in said) == shown


@pytest.mark.parametrize(("algorithm", "sampled"), [("dqn", False), ("ppo", True)])
def test_the_closing_table_has_no_row_that_the_agent_lacks(
    algorithm: str, sampled: bool, capsys: pytest.CaptureFixture[str]
):
    config, rows = TrainConfig.of(algorithm=algorithm), rows_of(0.5, 1.0)
    evaluation = Evaluation(np.ones(4), np.full(4, 5))
    finals = Evaluations(evaluation, evaluation if sampled else None)
    ProgressDisplay(config, Path("run"), resume=False).conclude(Outcome(finals, rows, Path("run"), config), 1.0)
    said = capsys.readouterr().out
    assert ("final return, sampled" in said) == sampled and "final return, greedy" in said
    assert "ε" not in said and "epsilon" not in said and "nan" not in said


def test_a_policy_that_fell_is_reported_with_a_command_that_evaluates_the_best_one(
    ran: Callable[..., str], workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "60")
    ran("train", "--env", ENV, "--memory", "mlp", "--run-dir", "my run's", *TINY)
    config = load_config(Path("my run's"))
    concluded(config, [20, 500, 9.8], 9.8, Path("my run's"))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "much worse" in line]
    assert line.startswith("the last policy is much worse than the best: 9.800 now, 500.000 after 20 training")
    command = shlex.split(line[line.index("memoroids evaluate") :])
    assert "mean return" in ran(*command[1:])

    concluded(config, [20, 500, 500], 500.0, Path("my run's"))
    assert "much worse" not in capsys.readouterr().out
    good, bad = (
        Outcome(Evaluations(Evaluation(np.full(9, final), np.full(9, 5))), rows_of(0, 100), Path(name), config)
        for final, name in ((100.0, "good"), (0.0, "bad"))
    )
    concluded(config, [0, 100], 50.0, Path("run"), seeds=(good, bad))
    said = capsys.readouterr().out
    assert "memoroids evaluate --best bad" in said and "--best good" not in said
