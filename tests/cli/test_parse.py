"""Options: each has its sentence in the help, and a wrong one is answered in one line."""

import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memoroids.agents.dqn import DQNConfig
from memoroids.cli.bench_command import BenchOptions
from memoroids.cli.commands import COMMANDS
from memoroids.cli.doctor_command import DoctorOptions
from memoroids.cli.experiment_commands import GapOptions, GridOptions, ReportOptions, ReproduceOptions
from memoroids.cli.export_command import ExportOptions
from memoroids.cli.inspect_commands import CompareOptions, EvaluateOptions, SensitivityOptions
from memoroids.cli.list_command import ListOptions
from memoroids.cli.look_command import LookOptions
from memoroids.cli.main import main
from memoroids.cli.record_command import RecordOptions
from memoroids.cli.train_command import ResumeOptions
from memoroids.cli.tune_command import TuneOptions
from memoroids.cli.watch_command import WatchOptions
from memoroids.replay import PriorityConfig
from memoroids.runs.settings import TrainConfig, options

pytestmark = pytest.mark.usefixtures("workplace")


OPTIONS: dict[str, Any] = {
    "doctor": DoctorOptions,
    "export": ExportOptions,
    "look": LookOptions,
    "record": RecordOptions,
    "watch": WatchOptions,
    "gap": GapOptions,
    "grid": GridOptions,
    "tune": TuneOptions,
    "train": TrainConfig,
    "resume": ResumeOptions,
    "evaluate": EvaluateOptions,
    "sensitivity": SensitivityOptions,
    "compare": CompareOptions,
    "reproduce": ReproduceOptions,
    "report": ReportOptions,
    "bench": BenchOptions,
    "list": ListOptions,
}


def sentences(text: str) -> dict[str, str]:
    """Option or argument → its description, from tyro's boxes."""
    described: dict[str, str] = {}
    name = None
    for line in text.splitlines():
        if not line.startswith("│"):
            name = None
            continue
        line = line.strip("│").rstrip()
        if re.match(r" \S", line) and not line.startswith(" ──"):
            names, _, rest = line.strip().partition("  ")
            name = re.split(r"[ ,]", names)[0]
            described[name] = rest.strip()
        elif name is not None:
            described[name] = f"{described[name]} {line.strip()}".strip()
    return described


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_its_sentence_in_the_help(command: str, terminal: Callable[[str], io.BytesIO]):
    shown = terminal("utf-8")
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert not stop.value.code
    assert f"\n\n{COMMANDS[command].summary}\n\n" in shown.getvalue().decode()
    described = sentences(shown.getvalue().decode())
    if command == "train":
        agent = {field.name for field in dataclasses.fields(DQNConfig)}
        expected = (
            set(options())
            | {"preset"}
            | agent
            | {f"priority.{field.name}" for field in dataclasses.fields(PriorityConfig)}
        )
    else:
        expected = {field.name for field in dataclasses.fields(OPTIONS[command])}
    positional = {"run": "PATH", "runs": "[[PATH", "what": "{envs" if command == "list" else "WHAT"}
    positional |= {"figure": "{figure3", "grid": "PATH"} | ({"env": "ENV"} if command == "gap" else {})
    positional |= {"file": "FILE.toml"} if command in ("grid", "tune") else {}
    for field in expected:
        text = described[positional.get(field, "--" + re.sub("_(?=.)", "-", field))]
        assert len(re.findall(r"[A-Za-z]{2,}", text.partition("(default")[0])) >= 3, f"{field}: {text!r}"
    named = {name for name in described if name.startswith("-")}
    assert len(named) == len(expected - set(positional)) + 1, "an option in the help that is no setting, besides -h"


def test_the_help_of_train_has_the_options_of_the_algorithm_that_is_named(terminal: Callable[[str], io.BytesIO]):
    shown = terminal("utf-8")
    with pytest.raises(SystemExit):
        main(["train", "--algorithm", "ppo", "--help"])
    described = sentences(shown.getvalue().decode())
    assert "--lambda_" in described and "--polyak" not in described


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], ["'trian'", "did you mean train?"]),
        (["--seed", "3"], ["--seed"]),
        (["train", "--env", "RepeatFristEasy"], ["'RepeatFristEasy'", "did you mean popgym-RepeatFirstEasy-v0"]),
        (["train", "--env=RepeatFristEasy"], ["'RepeatFristEasy'", "did you mean popgym-RepeatFirstEasy-v0"]),
        (
            ["train", "--env", "popgym-PositionOnlyPendulumEasy-v0"],
            ["popgym-PositionOnlyPendulumEasy-v0", "--algorithm ppo"],
        ),
        (["train", "--env", "no_such_module:Thing-v0"], ["no_such_module"]),
        (["train", "--env"], ["env"]),
        (["train", "--memory", "lruu"], ["'lruu'", "did you mean lru?"]),
        (["train", "--memory=lruu"], ["'lruu'", "did you mean lru?"]),
        (["train", "--memory", "no_such_module:build"], ["no_such_module"]),
        (["train", "--memory", "memoroids:nothing"], ["'nothing'"]),
        (["train", "--memory"], ["memory"]),
        (["train", "--memory", "ffm", "--memory-sizes", "state_size", "3"], ["ffm", "state_size"]),
        (["train", "--memory-sizes", "layers"], ["--memory-sizes"]),
        (["train", "--memory-sizes", "layers", "two"], ["--memory-sizes"]),
        (["train", "--preset", "papr"], ["'papr'", "paper"]),
        (["train", "--preset=papr"], ["'papr'", "paper"]),
        (["train", "--batching", "sequence"], ["'sequence'", "tape"]),
        (["train", "--batch-size", "0"], ["batch_size", "at least 1"]),
        (["train", "--batch-size=-5"], ["batch_size", "at least 1"]),
        (["train", "--batch-size", "many"], ["--batch-size: needs an integer, got 'many'"]),
        (["train", "--batch-size", "1.5"], ["--batch-size", "'1.5'"]),
        (["train", "--batch-size"], ["--batch-size"]),
        (["train", "--epsilon-start", "2"], ["epsilon_start", "between 0 and 1"]),
        (["train", "--learning-rate", "0"], ["learning_rate", "positive"]),
        (["train", "--seed", "-1"], ["seed", "at least 0"]),
        (["train", "--seed", "99999999999999999999"], ["seed"]),
        (["train", "--bogus", "1"], ["no option --bogus; see"]),
        (["train", "--lerning-rate", "1"], ["no option --lerning-rate; did you mean --learning-rate?"]),
        (["evaluate", "run", "--episode", "1"], ["no option --episode; did you mean --episodes?"]),
        (["train", "--algorithm", "ppo", "--polyak", "1"], ["polyak is a setting of dqn, but the algorithm is ppo"]),
        (["train", "--epsilon-end", "low"], ["--epsilon-end: needs a number, got 'low'"]),
        (["train", "stray"], ["stray"]),
        (["train", "--previous-action", "perhaps"], ["--previous-action", "perhaps"]),
        (["evaluate"], ["PATH"]),
        (["evaluate", "nowhere"], ["nowhere holds no run"]),
        (["evaluate", "nowhere", "--episodes", "0"], ["episodes", "at least 1"]),
        (["evaluate", "nowhere", "--seed", "-1"], ["seed", "at least 0"]),
        (["resume"], ["PATH"]),
        (["resume", "nowhere"], ["nowhere holds no run"]),
        (["compare"], ["at least one run"]),
        (["compare", "nowhere"], ["nowhere holds no run"]),
        (["reproduce"], ["figure3", "required"]),
        (["reproduce", "figure9"], ["'figure9'", "figure4"]),
        (["reproduce", "figure4", "--scale", "huge"], ["'huge'", "laptop"]),
        (["reproduce", "figure4", "--seeds", "0"], ["seeds", "at least 1"]),
        (["reproduce", "figure4", "--seeds", "two"], ["--seeds", "'two'"]),
        (["reproduce", "figure4", "--jobs", "0"], ["jobs", "at least 1"]),
        (["reproduce", "figure4", "--segment-lengths", "10", "0"], ["segment_lengths", "at least 1"]),
        (["reproduce", "figure4", "--segment-lengths", "10", "10"], ["twice"]),
        (["reproduce", "figure4", "--segment-state", "old"], ["'old'", "burn-in"]),
        (["reproduce", "figure4", "--random-episodes", "-1"], ["random_episodes", "at least 0"]),
        (["reproduce", "figure4", "--train-episodes", "0"], ["train_episodes", "at least 1"]),
        (["reproduce", "figure4", "--ablations", "los"], ["'los'", "next-state"]),
        (["reproduce", "figure4", "--memories", "lruu"], ["'lruu'", "did you mean lru?"]),
        (["reproduce", "figure4", "--tasks", "RepeatFristEasy"], ["did you mean popgym-RepeatFirstEasy-v0"]),
        (["reproduce", "figure4", "--bogus", "1"], ["--bogus"]),
        (["report"], ["PATH"]),
        (["report", "nowhere"], ["nowhere holds no grid"]),
        (["list"], ["envs", "memories", "presets"]),
        (["list", "env"], ["'env'", "envs"]),
        (["bench", "speed"], ["'speed'", "update", "recurrence"]),
        (["bench", "update", "--repeats", "0"], ["repeats", "at least 1"]),
        (["bench", "update", "--compare", "a.json", "b.json"], ["compare measures nothing"]),
        (["bench", "--compare", "a.json", "b.json"], ["a.json", "No such file"]),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_answered_in_one_line_and_writes_nothing(
    argv: list[str], words: list[str], refused: Callable[..., str], workplace: Path
):
    said = refused(*argv, code=2)
    for word in words:
        assert word in said
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_wrong_option_is_answered_in_the_same_words_in_every_encoding(
    encoding: str, refused: Callable[..., str], terminal: Callable[[str], io.BytesIO]
):
    terminal(encoding)
    assert refused("train", "--bogus", "1") == ("memoroids: train: no option --bogus; see memoroids train --help\n")
