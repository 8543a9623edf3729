"""The command line, from within one process: what it says, where it writes, and how it refuses."""

import dataclasses
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from memoroids import __version__
from memoroids.acting.evaluation import Evaluation
from memoroids.agents.dqn import DQNConfig
from memoroids.agents.ppo import PPOConfig
from memoroids.agents.pqn import PQNConfig
from memoroids.cli.display import Display
from memoroids.cli.main import Bench, Compare, Evaluate, List, Report, Reproduce, Resume, Sensitivity, main
from memoroids.envs import popgym_ids
from memoroids.memory import REGISTRY
from memoroids.replay import PriorityConfig
from memoroids.runs import metrics, presets
from memoroids.runs import train as training
from memoroids.runs.build import TRAIN, environment_seeds
from memoroids.runs.presets import with_preset
from memoroids.runs.recorder import Outcome
from memoroids.runs.run_directory import evaluate_run
from memoroids.runs.settings import TrainConfig

ENV = "test-cli/Toy-v0"
TINY = [
    word
    for option, value in {
        "--width": 8,
        "--random-episodes": 3,
        "--train-episodes": 4,
        "--batch-size": 10,
        "--buffer-size": 100,
        "--num-envs": 1,
        "--eval-every": 2,
        "--eval-episodes": 2,
        "--final-episodes": 2,
    }.items()
    for word in (option, str(value))
]


class Toy(gym.Env):
    """Five steps of noise; an observation or a call may be made to go wrong at a seed's third step."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    third_step: Callable[[int | None, np.ndarray], np.ndarray] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.seed, self.t = seed, 0
        return self._look(), {}

    def step(self, action: int):
        self.t += 1
        return self._look(), float(action), self.t == 5, False, {}

    def _look(self) -> np.ndarray:
        noise = self.np_random.normal(size=2).astype(np.float32)
        return Toy.third_step(self.seed, noise) if self.t == 3 and Toy.third_step is not None else noise


gym.register(ENV, entry_point=Toy)


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory that commands are run in, as an installed command sees it: not on Python's path."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("workplace_"):
            del sys.modules[name]
    for name in [name for name in gym.registry if name.startswith("workplace/")]:
        del gym.registry[name]


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with a single line on stderr, and returns the line."""

    def run(*argv: str, code: int | None = None) -> str:
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert isinstance(stop.value.code, int) and stop.value.code != 0
        assert code is None or stop.value.code == code
        said = capsys.readouterr().err
        assert said.startswith("memoroids: ") and said.endswith("\n") and said.count("\n") == 1
        assert not re.search(r"[│╭╰]|Traceback", said)
        return said

    return run


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must succeed in silence on stderr, and returns its output with the spaces folded."""

    def run(*argv: str) -> str:
        try:
            main(argv)
        except SystemExit as stop:
            assert not stop.code, capsys.readouterr().err
        said = capsys.readouterr()
        assert said.err == ""
        return " ".join(said.out.split())

    return run


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], io.BytesIO]:
    """Lets standard output go to a place that writes in an encoding of its own."""

    def replace(encoding: str) -> io.BytesIO:
        shown = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding, write_through=True))
        return shown

    return replace


COMMANDS: dict[str, Any] = {
    "train": TrainConfig,
    "resume": Resume,
    "evaluate": Evaluate,
    "sensitivity": Sensitivity,
    "compare": Compare,
    "reproduce": Reproduce,
    "report": Report,
    "bench": Bench,
    "list": List,
}


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]], ids=str)
def test_the_commands_are_listed_with_what_they_do(argv: list[str], ran: Callable[..., str]):
    said = ran(*argv)
    for name, config in COMMANDS.items():
        assert f" {name} {(config.__doc__ or '').split('.')[0]}" in said


def test_the_version_is_that_of_the_package(ran: Callable[..., str]):
    assert ran("--version") == __version__


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
    described = sentences(shown.getvalue().decode())
    expected = {field.name for field in dataclasses.fields(COMMANDS[command])} - {"dqn", "ppo", "pqn", "priority"}
    if command == "train":
        expected |= {field.name for field in dataclasses.fields(DQNConfig)}
        for prefix, config in (("ppo", PPOConfig), ("pqn", PQNConfig), ("priority", PriorityConfig)):
            expected |= {f"{prefix}.{field.name}" for field in dataclasses.fields(config)}
    positional = {"run": "PATH", "runs": "[[PATH", "what": "{envs" if command == "list" else "WHAT"}
    positional |= {"figure": "{figure3", "grid": "PATH"}
    for field in expected:
        text = described[positional.get(field, "--" + re.sub("_(?=.)", "-", field))]
        assert len(re.findall(r"[A-Za-z]{2,}", text.partition("(default")[0])) >= 3, f"{field}: {text!r}"
    options = {name for name in described if name.startswith("-")}
    assert len(options) == len(expected - set(positional)) + 1, "an option in the help that is no setting, besides -h"


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
        (["train", "--batch-size", "many"], ["--batch-size", "'many'"]),
        (["train", "--batch-size", "1.5"], ["--batch-size", "'1.5'"]),
        (["train", "--batch-size"], ["--batch-size"]),
        (["train", "--epsilon-start", "2"], ["epsilon_start", "between 0 and 1"]),
        (["train", "--learning-rate", "0"], ["learning_rate", "positive"]),
        (["train", "--seed", "-1"], ["seed", "at least 0"]),
        (["train", "--seed", "99999999999999999999"], ["seed"]),
        (["train", "--bogus", "1"], ["--bogus"]),
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
    assert refused("train", "--bogus", "1") == (
        "memoroids: train: Unrecognized options: --bogus, 1; see memoroids train --help\n"
    )


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_listing_does_not_fail_for_letters_that_cannot_be_shown(encoding: str, terminal: Callable[[str], io.BytesIO]):
    shown = terminal(encoding)
    main(["list", "memories"])
    assert "linear_transformer" in shown.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_run_does_not_fail_for_letters_that_cannot_be_shown(encoding: str, terminal: Callable[[str], io.BytesIO]):
    shown = terminal(encoding)
    main(["train", "--env", ENV, "--memory", "mlp", "--updates-per-episode", "0", *TINY])
    said = shown.getvalue().decode(encoding)
    assert "4/4 episodes" in said and "final return" in said


def test_a_replay_larger_than_the_machines_memory_is_answered_in_one_line(refused: Callable[..., str]):
    settings = dict(zip(TINY[::2], TINY[1::2], strict=True)) | {"--buffer-size": "1000000000000"}
    said = refused("train", "--env", ENV, "--memory", "mlp", *[word for pair in settings.items() for word in pair])
    assert "buffer" in said


def test_environments_memories_and_presets_are_listed_by_the_names_to_use(ran: Callable[..., str]):
    listed = ran("list", "envs")
    assert all(name in listed.split() for name in popgym_ids())
    listed = ran("list", "memories")
    assert all(f" {name} " in listed for name in REGISTRY)
    listed = ran("list", "presets")
    assert all(f"{task} {name}: " in listed for task in presets.TASKS for name in ("tuned", "paper"))
    assert listed.count("atari") == 2 and "any ALE game atari: width=512" in listed
    assert "RepeatFirstEasy tuned, lru: memory_sizes={'r_min': 0.9" in listed
    assert "MineSweeperEasy paper: random_episodes=10000, train_episodes=40000" in listed


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


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainConfig, Path, bool]]:
    """What the command line asks of training, which is not done."""
    calls: list[tuple[TrainConfig, Path, bool]] = []

    def instead(config: TrainConfig, run_dir: Path, *, resume: bool = False, watch: Any = None) -> Outcome:
        calls.append((config, run_dir, resume))
        return Outcome(Evaluation(np.ones(2), np.ones(2, int)), [], run_dir)

    monkeypatch.setattr(training, "train", instead)
    return calls


def settings_of(asked: list[tuple[TrainConfig, Path, bool]], *argv: str) -> TrainConfig:
    main(["train", *argv])
    return dataclasses.replace(asked[-1][0], run_dir=None)


def test_the_bare_command_trains_an_lru_on_repeat_previous_with_our_preset(asked: Any):
    tuned = presets.preset("tuned", "RepeatPreviousEasy", "lru")
    assert settings_of(asked) == with_preset(TrainConfig(), tuned)
    assert (asked[0][0].env, asked[0][0].memory) == ("popgym-RepeatPreviousEasy-v0", "lru")
    assert asked[0][2] is False


@pytest.mark.parametrize("spelling", ["--env {} --memory {} --preset {}", "--preset={2} --env={0} --memory={1}"])
@pytest.mark.parametrize("env", ["MineSweeperEasy", "popgym-RepeatFirstEasy-v0", "CartPole-v1"])
@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_is_that_of_the_environment_and_memory_asked_for(spelling: str, env: str, name: str, asked: Any):
    settings = settings_of(asked, *spelling.format(env, "ffm", name).split())
    default = TrainConfig(env=settings.env, memory="ffm", preset=name)  # pyright: ignore[reportArgumentType]
    assert env in settings.env
    assert settings == with_preset(default, presets.preset(name, env, "ffm"))


def test_the_papers_settings_reach_the_run(asked: Any):
    settings = settings_of(asked, "--env=MineSweeperEasy", "--preset", "paper")
    assert (settings.train_episodes, settings.dqn.polyak, settings.cut_batch) == (40_000, 0.9975, True)


def test_a_preset_may_depend_on_the_memory(asked: Any, monkeypatch: pytest.MonkeyPatch):
    def preset(name: str, env: str, memory: str, algorithm: str) -> dict[str, Any]:
        return {"memory_sizes": {"layers": 1}, "dqn.warmup": 7} if memory == "s5" else {"dqn.warmup": 9}

    monkeypatch.setattr(presets, "preset", preset)
    with_sizes, without = settings_of(asked, "--memory", "s5"), settings_of(asked, "--memory", "gru")
    assert (with_sizes.memory_sizes, with_sizes.dqn.warmup) == ({"layers": 1}, 7)
    assert (without.memory_sizes, without.dqn.warmup) == ({}, 9)


def test_what_is_said_on_the_command_line_wins_over_the_preset(asked: Any):
    said = (
        "--train-episodes",
        "7",
        "--polyak=0.5",
        "--no-cut-batch",
        "--previous-action",
        "None",
        "--max-grad-norm",
        "1",
    )
    settings = settings_of(asked, "--preset", "paper", "--env", "MineSweeperEasy", *said)
    assert (settings.train_episodes, settings.dqn.polyak, settings.cut_batch) == (7, 0.5, False)
    assert settings.previous_action is None and settings.dqn.clip == 1.0
    assert (settings.random_episodes, settings.dqn.learning_rate) == (10_000, 1e-4)


@pytest.mark.parametrize("algorithm", ["ppo", "pqn"])
@pytest.mark.parametrize("env", ["RepeatFirstEasy", "device:RepeatFirstEasy", "device:repeatfirsteasy"])
def test_algorithms_without_replay_have_presets_of_their_own(algorithm: str, env: str, asked: Any):
    settings = settings_of(asked, "--env", env, "--algorithm", algorithm, f"--{algorithm}.epochs", "2")
    assert settings.algorithm == algorithm and settings.random_episodes == 0
    learner = getattr(settings, algorithm)
    assert learner.epochs == 2 and learner.discount == 0.5
    assert (settings.train_steps is None) == (not settings.on_device)
    if settings.on_device:
        assert settings.env == "device:RepeatFirstEasy"


def test_sizes_of_the_memory_are_named_one_by_one(asked: Any):
    settings = settings_of(asked, "--memory-sizes", "layers", "1", "r_min", "0.9", "--seed", "3")
    assert settings.memory_sizes == {"layers": 1, "r_min": 0.9} and settings.seed == 3


def test_a_run_is_written_under_runs_or_where_it_is_told(asked: Any, workplace: Path):
    (workplace / "runs" / "RepeatPreviousEasy-lru-seed0-1").mkdir(parents=True)
    main(["train"])
    main(["train", "--run-dir", "else/where"])
    assert [str(call[1]) for call in asked] == ["runs/RepeatPreviousEasy-lru-seed0-2", "else/where"]


@pytest.mark.parametrize("name", ["a[b]:cat: d", "a[/b]"])
def test_paths_are_shown_as_they_are(name: str, asked: Any, capsys: pytest.CaptureFixture[str]):
    main(["train", "--run-dir", name])
    said = " ".join(capsys.readouterr().out.split())
    assert f"memoroids evaluate {name} --episodes" in said


def test_a_run_is_trained_evaluated_and_resumed(ran: Callable[..., str], refused: Callable[..., str], workplace: Path):
    said = ran("train", "--env", ENV, "--memory", "mlp", *TINY)
    (run,) = (workplace / "runs").iterdir()
    shown = run.relative_to(workplace)
    assert [path.name for path in workplace.iterdir()] == ["runs"]
    assert {path.name for path in run.iterdir()} >= {"config.json", "metrics.csv", "curve.png", "checkpoints"}
    assert f"training mlp on {ENV}, tapes, seed 0" in said and "finished" in said
    assert "4/4 episodes" in said and "final return, 2 fresh seeds" in said
    assert f"try: memoroids evaluate {shown} --episodes 100" in said

    before = files(run)
    said = ran("evaluate", str(shown), "--episodes", "3")
    found = re.fullmatch(
        r"mean return (\S+), 95% interval \[(\S+), (\S+)\], 3 greedy episodes of mean length 5.0 on fresh seeds", said
    )
    assert found is not None
    mean, low, high = map(float, found.groups())
    expected = evaluate_run(run, 3, seed=0)
    assert low <= mean <= high and mean == pytest.approx(expected.mean, abs=1e-4)
    assert files(run) == before

    said = ran("compare", str(shown), "--output", "curves.png")
    assert "mlp" in said and "drawn to curves.png" in said
    assert (workplace / "curves.png").stat().st_size > 5_000
    assert "nowhere/curves.png" in refused("compare", str(shown), "--output", "nowhere/curves.png")
    assert "'none'" in refused("compare", str(shown), "--output", "curves.none")
    assert files(run) == before

    assert str(shown) in refused("train", "--env", ENV, "--memory", "mlp", "--run-dir", str(shown), *TINY)
    assert files(run) == before

    said = ran("resume", str(shown))
    assert f"resuming mlp on {ENV}" in said and "finished" in said
    assert [row["episode"] for row in metrics.read(run / "metrics.csv")] == [2, 4]


def test_an_interrupted_run_is_resumed_with_the_command_that_it_ends_with(
    ran: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, workplace: Path
):
    def show(self: Display, moment: Any) -> None:
        if moment.row is not None:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Display, "show", show)
        with pytest.raises(SystemExit) as stop:
            main(["train", "--env", ENV, "--memory", "mlp", "--run-dir", "run", *TINY])
    assert stop.value.code == 130
    said = capsys.readouterr()
    assert said.err == "" and "try: memoroids resume run\n" in said.out
    assert [row["episode"] for row in metrics.read(workplace / "run" / "metrics.csv")] == [2]
    assert "finished" in ran("resume", "run")
    assert [row["episode"] for row in metrics.read(workplace / "run" / "metrics.csv")] == [2, 4]


def test_a_memory_of_the_users_own_is_trained_from_where_the_command_is_run(ran: Callable[..., str], workplace: Path):
    (workplace / "workplace_package").mkdir()
    (workplace / "workplace_package" / "__init__.py").touch()
    (workplace / "workplace_package" / "models.py").write_text(
        "from memoroids.memory import MLP\n"
        "def build(input_size, output_size, *, key, scale=1):\n"
        "    assert scale == 3\n"
        "    return MLP(input_size, output_size, key=key)\n"
    )
    memory = "workplace_package.models:build"
    assert "finished" in ran("train", "--env", ENV, "--memory", memory, "--memory-sizes", "scale", "3", *TINY)
    (run,) = (workplace / "runs").iterdir()
    assert "3 greedy episodes" in ran("evaluate", str(run), "--episodes", "3", "--trust")


def test_an_environment_of_the_users_own_is_trained_from_where_the_command_is_run(
    ran: Callable[..., str], workplace: Path
):
    (workplace / "workplace_env.py").write_text(
        f"import gymnasium as gym\nfrom {__name__} import Toy\ngym.register('workplace/Toy-v0', entry_point=Toy)\n"
    )
    assert "finished" in ran("train", "--env", "workplace_env:workplace/Toy-v0", "--memory", "mlp", *TINY)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("def f(:\n", "workplace_bad"),
        ("raise RuntimeError('first\\nsecond')\n", "first second"),
        (
            "import gymnasium as gym\n"
            "def make():\n"
            "    raise OSError('no\\ndisplay')\n"
            "gym.register('workplace/Thing-v0', entry_point=make)\n",
            "no display",
        ),
    ],
    ids=["syntax", "raises at import", "raises when made"],
)
def test_an_environment_of_the_users_own_that_cannot_be_made_is_answered_in_one_line(
    text: str, word: str, refused: Callable[..., str], workplace: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(workplace))
    (workplace / "workplace_bad.py").write_text(text)
    said = refused("train", "--env", "workplace_bad:workplace/Thing-v0", "--memory", "mlp", *TINY)
    assert word in said
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize("kind", ["raises", "nan"])
def test_an_environment_that_fails_in_mid_run_is_named_with_episode_and_step_and_nothing_is_lost(
    kind: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, workplace: Path
):
    when = environment_seeds(0, TRAIN)(3)

    def third_step(seed: int | None, noise: np.ndarray) -> np.ndarray:
        if seed == when and kind == "raises":
            raise RuntimeError("the server\nis gone")
        return noise * np.nan if seed == when else noise

    monkeypatch.setattr(Toy, "third_step", staticmethod(third_step))
    argv = ("train", "--env", ENV, "--memory", "mlp", "--run-dir", "run", "--checkpoint-every", "3", *TINY)
    said = refused(*argv, "--max-faults", "0", code=1)
    assert "episode 3" in said and "step 3" in said and ENV in said
    assert ("the server is gone" if kind == "raises" else "nan") in said
    assert [row["episode"] for row in metrics.read(workplace / "run" / "metrics.csv")] == [2]
    assert [path.name for path in (workplace / "run" / "checkpoints").iterdir()] == ["000000006.0001"]


def test_an_unreadable_checkpoint_or_config_is_named(
    ran: Callable[..., str], refused: Callable[..., str], workplace: Path
):
    ran("train", "--env", ENV, "--memory", "mlp", "--run-dir", "run", "--updates-per-episode", "0", *TINY)
    (checkpoint,) = (workplace / "run" / "checkpoints").iterdir()
    manifest = checkpoint / "manifest.json"
    healthy = manifest.read_text()
    for damaged in ("", "[]", '{"counters": {}}', healthy[:-20]):
        manifest.write_text(damaged)
        for command in ("evaluate", "resume"):
            assert str(checkpoint.relative_to(workplace)) in refused(command, "run", code=1)
    manifest.unlink()
    assert "run/checkpoints" in refused("resume", "run", code=1)
    (workplace / "run" / "config.json").write_text('{"env": 3}')
    assert "run/config.json" in refused("evaluate", "run", code=2)


def test_a_run_directory_that_cannot_be_one_is_named(refused: Callable[..., str], workplace: Path):
    (workplace / "taken").write_text("a file")
    for run_dir in ("taken", "taken/inside"):
        assert "taken" in refused("train", "--env", ENV, "--memory", "mlp", "--run-dir", run_dir, *TINY)
    assert (workplace / "taken").read_text() == "a file"


def test_a_directory_with_other_things_in_it_may_hold_a_run_too(ran: Callable[..., str], workplace: Path):
    (workplace / "run").mkdir()
    (workplace / "run" / "notes.txt").write_text("mine")
    ran("train", "--env", ENV, "--memory", "mlp", "--run-dir", "run", *TINY)
    assert (workplace / "run" / "notes.txt").read_text() == "mine"


def test_ctrl_c_before_anything_began_ends_with_its_own_code(refused: Callable[..., str], monkeypatch: Any):
    def interrupted(*_: Any, **__: Any) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    assert "interrupted" in refused("train", code=130)
