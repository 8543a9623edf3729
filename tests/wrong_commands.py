"""Invalid commands and damaged runs, which must fail with a one-line message: `python tests/wrong_commands.py`."""

import contextlib
import dataclasses
import importlib
import io
import json
import os
import re
import sys
import tempfile
import time
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from memoroids import benchmarks
from memoroids.agents.agent_registry import REGISTRY
from memoroids.benchmarks import padded_returns as returns
from memoroids.cli.main import main as memoroids
from memoroids.experiments import runner
from memoroids.runs.device_loop import DeviceRun
from memoroids.runs.host_loop import HostRun
from memoroids.runs.metrics import FIELDS
from memoroids.runs.settings import PREFIXED, TrainConfig, options
from memoroids.runs.settings_file import to_json

# The smallest run, for errors that are detected only when a run is built.
SMALL = ["--env", "RepeatFirstEasy", "--memory", "mlp", "--width", "8", "--num-envs", "1", "--eval-episodes", "1"]
DEVICE = [
    "--env",
    "device:RepeatFirstEasy",
    "--memory",
    "mlp",
    "--width",
    "8",
    "--num-envs",
    "2",
    "--eval-episodes",
    "1",
]


@dataclasses.dataclass(frozen=True)
class Case:
    """An invalid command, the files prepared in its directory, and a pattern that its one-line message must match."""

    name: str
    argv: tuple[str, ...]
    says: str
    prepare: Callable[[Path], None] | None = None

    @property
    def family(self) -> str:
        """The first part of its name."""
        return self.name.partition(": ")[0]


class Began(BaseException):
    """A command that should have been refused started its work; no handler of the program catches this."""


def _began(*_: Any, **__: Any) -> Any:
    raise Began


def _case(family: str, line: str | list[str], says: str, prepare: Callable[[Path], None] | None = None, note: str = ""):
    argv = line.split() if isinstance(line, str) else line
    shown = " ".join(repr(word) if not word or " " in word else word for word in argv)
    return Case(f"{family}: {note}{', ' if note else ''}{shown}", tuple(argv), says, prepare)


def _options() -> Iterator[tuple[str, str, Any]]:
    """Every option of `train`: its spelling on the command line, its field, and the type of the field."""
    default = TrainConfig()
    for option, (group, field) in options().items():
        cls = TrainConfig if group is None else type(getattr(default, group))
        name = field if group in PREFIXED else option
        yield "--" + option.replace("_", "-"), name, typing.get_type_hints(cls)[field]
    agents = {"" if name == "dqn" else f"{name}.": kind.settings for name, kind in REGISTRY.items()}
    for prefix, cls in agents.items():
        hints = typing.get_type_hints(cls)
        for inner in dataclasses.fields(cls):
            yield "--" + prefix + re.sub("_(?!$)", "-", inner.name), inner.name, hints[inner.name]


def _plain(hint: Any) -> Any:
    """The type without None."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(arg for arg in typing.get_args(hint) if arg is not type(None))
    return hint


def _commands() -> Iterator[Case]:
    wrong = "trian Train trains resum evalute sensitivty compair repoduce reports bnech lst help --seed --versions -v"
    for word in [*wrong.split(), "", " train", "train\n", "тrain", "--", "-", "config.json"]:
        yield _case("command", [word], re.escape(f"unknown command {word!r}").replace(r"\ ", " "))
    for command in (
        "resume",
        "evaluate",
        "sensitivity",
        "doctor",
        "export",
        "record",
        "report",
        "reproduce",
        "gap",
        "grid",
        "tune",
        "list",
    ):
        yield _case("command", [command], f"{command}: .*(required|missing)")
    yield _case("command", "compare", "name at least one run")
    yield _case("command", "look", "name at least one run")


def _unknown_options() -> Iterator[Case]:
    for command, rest in (
        ("train", ""),
        ("resume", "run"),
        ("evaluate", "run"),
        ("sensitivity", "run"),
        ("compare", "run"),
        ("doctor", "run"),
        ("export", "run"),
        ("look", "run"),
        ("record", "run"),
        ("watch", "run"),
        ("reproduce", "figure4"),
        ("gap", "device:RepeatFirstEasy"),
        ("grid", "grid.toml"),
        ("tune", "tune.toml"),
        ("report", "grid"),
        ("bench", "update"),
        ("list", "envs"),
    ):
        yield _case("unknown option", f"{command} {rest} --bogus 1", f"{command}: .*--bogus")
        yield _case("unknown option", f"{command} {rest} -x", f"{command}: .*-x")
    for option in (
        "--batchsize",
        "--learning_rates",
        "--ppo",
        "--dqn.entropy",
        "--sac.entropy",
        "--ppo.polyak",
        "--pqn.entropy",
        "--Env",
    ):
        yield _case("unknown option", f"train {option} 1", f"train: .*{re.escape(option)}")
    yield _case("unknown option", "evaluate run other", "evaluate: .*other")
    yield _case("unknown option", "train RepeatFirstEasy", "train: .*RepeatFirstEasy")


def _misspelt_options() -> Iterator[Case]:
    for option, _, _ in _options():
        agent, _, _ = option[2:].partition(".")
        if agent in REGISTRY or len(option) < 8:
            continue
        wrong = option[:5] + option[6:]  # a letter is missing
        yield _case("misspelt", ["train", wrong, "1"], f"no option {wrong}; did you mean --")
    for command in (
        "evaluate run --episode 3",
        "sensitivity run --ouput x",
        "compare run --out x",
        "resume run --trsut",
    ):
        yield _case("misspelt", command, r"no option --\S+?; did you mean --\S+\?")


def _missing_values() -> Iterator[Case]:
    for option, name, hint in _options():
        # Flags take no value, and a list or mapping may be empty.
        if hint is bool or typing.get_origin(hint) in (tuple, dict):
            continue
        yield _case("missing value", ["train", option], f"{re.escape(option)}|{name}|environment ''|memory ''")
    for line in (
        "evaluate run --episodes",
        "sensitivity run --output",
        "compare run --output",
        "bench update --repeats",
    ):
        yield _case("missing value", line, re.escape(line.split()[-1]))
    for option in ("--scale", "--seeds", "--jobs", "--output", "--segment-state", "--train-episodes"):
        yield _case("missing value", f"reproduce figure4 {option}", option)


def _wrong_types() -> Iterator[Case]:
    for option, name, hint in _options():
        # An agent's option may be written with or without its name; it is answered without.
        agent, _, rest = option[2:].partition(".")
        start, shown = ["train"], re.escape(option)
        if agent in REGISTRY:
            start, shown = ["train", "--algorithm", agent], re.escape(f"--{rest}")
        plain = _plain(hint)
        if plain is int:
            for value in ("many", "1.5"):
                yield _case("wrong type", [*start, option, value], f"{shown}.*'{re.escape(value)}'")
        elif plain is float:
            yield _case("wrong type", [*start, option, "many"], f"{shown}.*'many'")
        elif plain is bool:
            # tyro's message contains the value but not the flag
            yield _case("wrong type", [*start, f"{option}=perhaps"], "perhaps")
        elif typing.get_origin(plain) is Literal:
            yield _case("wrong type", [*start, option, "wrong"], f"(?=.*({option}|unknown {name})).*'wrong'")
        elif typing.get_origin(plain) is tuple:
            yield _case("wrong type", [*start, option, "4", "often"], f"{shown}.*'often'")
        elif typing.get_origin(plain) is dict:
            yield _case("wrong type", [*start, option, "alone"], f"{shown}.*")
    for value in ("", " ", "1e3", "0x10", "None", "１.0", "1,000", "--"):
        yield _case("wrong type", ["train", "--batch-size", value], "--batch-size")
    yield _case("wrong type", ["train", "--learning-rate", ""], "--learning-rate")
    for option in ("--memory-sizes", "--env-options"):
        yield _case("wrong type", f"train {option} k 1 k 2", f"{option}.*k is given twice")
        yield _case("wrong type", ["train", option, "k", "[1, 2"], rf"{option}.*cannot read '\[1, 2'")
        yield _case("wrong type", f"train {option} k nan", "k must be finite, got nan")
    yield _case("wrong type", "evaluate run --episodes 1.5", "--episodes.*'1.5'")
    yield _case("wrong type", "sensitivity run --seed x", "--seed.*'x'")


def _ranges() -> Iterator[Case]:
    positive = (
        "width batch_size train_episodes num_envs eval_every eval_episodes checkpoint_every segment_length tapes "
    )
    positive += "seeds devices final_episodes steps rollout chunk parameters"
    for name in positive.split():
        for value in ("0", "-3"):
            yield _case("range", [*_train(name), value], f"{name} must be at least 1, got {value}")
    for name in ("random_episodes", "updates_per_episode", "seed", "sensitivity_every", "max_faults"):
        yield _case("range", [*_train(name), "-1"], f"{name} must be at least 0, got -1")
    yield _case("range", "train --buffer-size 1", "buffer_size must be at least 2, got 1")
    for name in ("epsilon_start", "epsilon_end", "polyak", "discount"):
        for value in ("-0.1", "1.5"):
            yield _case("range", [*_train(name), value], f"{name} must be between 0 and 1, got {value}")
    for name in ("learning_rate", "max_grad_norm"):
        for value in ("0", "-1", "1e-400"):
            yield _case("range", [*_train(name), value], f"{name} must be positive")
    yield _case("range", "train --learning-rate-end -1", "learning_rate_end must be finite and not negative, got -1")
    yield _case("range", "train --warmup -1", "warmup must not be negative, got -1")
    for value in ("0", "-4"):
        yield _case(
            "range", f"train --step-periods 4 {value}", f"step_periods must be positive and finite, got {value}"
        )
    for learner in ("ppo", "pqn"):
        start = f"train --algorithm {learner} --{learner}."
        for name, value in (
            ("lambda_", "2"),
            ("discount", "-1"),
            ("epochs", "0"),
            ("minibatches", "0"),
            ("max_grad_norm", "0"),
        ):
            yield _case("range", f"{start}{name} {value}", f"{name} must be .*got {value}")
    for name, value in (("clip-ratio", "0"), ("value-weight", "-1"), ("entropy", "-1"), ("entropy-end", "-1")):
        yield _case(
            "range", f"train --algorithm ppo --ppo.{name} {value}", f"{name.replace('-', '_')} must .*got {value}"
        )
    for name, value in (("correction", "2"), ("mix", "-1"), ("exponent", "-1"), ("floor", "0")):
        yield _case(
            "range", ["train", *DEVICE, "--prioritised", f"--priority.{name}", value], f"{name} must .*got {value}"
        )
    yield _case("range", "evaluate run --episodes 0", "episodes must be at least 1")
    yield _case("range", "sensitivity run --seed -1", "seed at least 0")


def _not_finite() -> Iterator[Case]:
    """Every float option as NaN, and as infinity unless that is valid (clipping at infinity is no clipping)."""
    for option, name, hint in _options():
        if _plain(hint) is not float:
            continue
        learner = re.match("--(ppo|pqn)", option)
        start = [
            "train",
            *DEVICE,
            *(["--algorithm", learner[1], f"--{learner[1]}.minibatches", "1"] if learner else []),
        ]
        start += ["--prioritised"] if option.startswith("--priority") else []
        yield _case("not finite", [*start, option, "nan"], f"{name} .*nan")
        if name not in ("max_grad_norm", "clip_ratio"):
            yield _case("not finite", [*start, option, "inf"], f"{name} .*inf")
        yield _case("not finite", [*start, option, "-inf"], f"({name} .*|{re.escape(option)}.*)-inf")
    for value in ("nan", "inf", "-inf"):
        yield _case("not finite", ["train", *SMALL, "--step-periods", "4", value], f"step_periods .*{value}")


def _huge() -> Iterator[Case]:
    yield _case("huge", f"train --seed {2**32}", f"seed must be below .*{2**32}")
    yield _case("huge", f"train --seed {10**30}", "seed must be below")
    yield _case("huge", f"train --env device:RepeatFirstEasy --seeds {2**33}", "seed must be below")
    for value in (10**12, 10**30):
        yield _case("huge", ["train", *SMALL, "--width", str(value)], f"network of width {value} ")
    yield _case("huge", ["train", *SMALL, "--parameters", str(10**30)], r"network of width \d{15} ")
    yield _case("huge", f"train --batch-size {'9' * 5000}", "--batch-size")
    yield _case("huge", ["train", "--run-dir", "x" * 300, *SMALL], "(?=.*x{300}).*too long")
    yield _case("huge", ["evaluate", "x" * 500], "(?=.*x{300}).*too long")
    yield _case("huge", f"bench update --repeats -{10**30}", "repeats must be at least 1")


def _contradictions() -> Iterator[Case]:
    yield _case("contradiction", "train --ppo.epochs 2", "epochs is a setting of ppo, but the algorithm is dqn")
    yield _case(
        "contradiction", "train --pqn.max-grad-norm 2", "max_grad_norm is a setting of pqn, but the algorithm is dqn"
    )
    for algorithm in ("ppo", "pqn"):
        start = f"train --env device:RepeatFirstEasy --algorithm {algorithm}"
        yield _case("contradiction", f"{start} --polyak 0.5", f"polyak is a setting of dqn, but .* {algorithm}")
        yield _case("contradiction", f"{start} --batching segments", "batching segments is for agents with replay")
        yield _case("contradiction", f"{start} --random-episodes 5", "random_episodes 5 is for agents with replay")
        yield _case("contradiction", f"{start} --cut-batch", "cut_batch True is for agents with replay")
        yield _case("contradiction", f"{start} --prioritised", "prioritised True is for agents with replay")
        yield _case("contradiction", f"{start} --tapes 2", "tapes 2 is for agents with replay")
        yield _case("contradiction", f"{start} --num-envs 7", "minibatches must divide num_envs: 7 environments")
        yield _case("contradiction", f"{start} --{algorithm}.minibatches 5", "must divide num_envs: .* 5 minibatches")
    yield _case(
        "contradiction", "train --rollout 8", "rollout 8 is for device environments, or for agents without replay"
    )
    for option in ("tapes 2", "mapping vmap", "devices 2", "prioritised"):
        name = option.split()[0]
        yield _case("contradiction", f"train --{option}", f"{name} \\w+ needs a device environment")
    start = "train --env device:RepeatFirstEasy"
    yield _case("contradiction", f"{start} --batching segments", "batching segments is for host")
    yield _case("contradiction", f"{start} --sensitivity-every 5", "sensitivity_every is for host")
    yield _case("contradiction", f"{start} --priority.mix 0.5", "priority.mix 0.5 needs --prioritised")
    yield _case("contradiction", f"{start} --batch-size 10 --tapes 3", "tapes must divide batch_size: 10 .* 3 tapes")
    yield _case("contradiction", f"{start} --seeds 3 --devices 2", "devices must divide seeds: 3 seeds on 2")
    yield _case("contradiction", f"{start} --num-envs 3 --devices 2", "devices must divide num_envs: 3 num_envs on 2")
    yield _case(
        "contradiction", f"{start} --devices 2 --batch-size 999 --tapes 3", "devices must divide tapes: 3 tapes"
    )
    yield _case("contradiction", ["train", *DEVICE, "--devices", "2"], "devices?\\b.*2", note="there is one")
    yield _case("contradiction", ["train", *DEVICE, "--buffer-size", "10"], "buffer_size 10 gives")
    yield _case("contradiction", "bench update --output figures", "output is for returns only, got it for update")
    yield _case("contradiction", "bench --json --compare old.json new.json", "compare measures nothing")


def _environments() -> Iterator[Case]:
    for name in ("RepeatFristEasy", "CartPole", "Nothing-v99", "popgym-RepeatFirstEasy-v9", "123", "../up", "a b"):
        yield _case("environment", ["train", "--env", name], f"unknown environment {re.escape(repr(name))}|{name}")
    yield _case("environment", ["train", "--env="], "env")
    for name in ("no_such_module:Thing-v0", ":Thing-v0", "json:Thing-v0", "wrong..dots:Thing-v0", "ALE/Nothing-v5"):
        yield _case(
            "environment", ["train", "--memory", "mlp", "--env", name], re.escape(name.partition(":")[0]) or "."
        )
    for name in ("RepeatFristEasy", "", "gymnax:Nothing-v1", "no_such_module:make", "json:nothing", "json:__name__"):
        says = re.escape(name.rpartition(":")[2]) or "unknown device environment"
        yield _case("environment", ["train", *DEVICE[2:], "--env", f"device:{name}"], says)
    yield _case("environment", "train --env Pendulum-v1 --memory mlp --num-envs 1 --eval-episodes 1", "continuous")
    broken = (
        ("raise RuntimeError('first\\nsecond')", "first second"),
        ("def f(:", "wrong_env_"),
        ("import sys\nsys.exit(3)", "wrong_env_"),
        ("", "Thing"),
    )
    for number, (text, says) in enumerate(broken):
        module = f"wrong_env_{number}"
        yield _case(
            "environment", ["train", *SMALL[2:], "--env", f"{module}:Thing-v0"], says, _file(f"{module}.py", text)
        )


_OWN = """
import gymnasium as gym
import numpy as np

class Own(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

"""
"""The beginning of a module with an environment, of which each case changes what is wrong with it."""


def _own_environments() -> Iterator[Case]:
    box, image = "gym.spaces.Box(-1, 1, {}, np.float32)", "gym.spaces.Box(0, 255, (40, 40, 3), np.uint8)"
    changes = [
        ("del Own.observation_space", "needs a gymnasium.Space as its observation_space, but has none"),
        ("del Own.action_space", "needs a gymnasium.Space as its action_space, but has none"),
        ("Own.observation_space = 4", "as its observation_space, but has one of type int"),
        ("Own.action_space = 4", "as its action_space, but has one of type int"),
        ("Own.action_space = None", "as its action_space, but has none"),
        ("Own.action_space = lambda self, agent: 2", "action_space, but has one of type (function|method)"),
        (f"Own.action_space = {box.format('(0,)')}", "needs 0 network outputs"),
        ("Own.action_space = gym.spaces.Box(-np.inf, np.inf, (1,))", "Box of floats with bounds of at most 1e.18"),
        ("Own.action_space = gym.spaces.Box(-3e38, 3e38, (1,))", "Box of floats with bounds of at most 1e.18"),
        ("Own.action_space = gym.spaces.Box(0, 5, (1,), np.int32)", "not supported"),
        ("Own.action_space = gym.spaces.Discrete(2_000_000)", "2,000,000 network outputs"),
        ("Own.action_space = gym.spaces.MultiDiscrete([600_000] * 2)", "1,200,000 network outputs"),
        ("Own.action_space = gym.spaces.Text(3)", "not supported"),
        ("Own.action_space = gym.spaces.Dict(a=gym.spaces.Discrete(2))", "not supported"),
        (f"Own.observation_space = {box.format('(0,)')}", "hold nothing that an agent can see"),
        ("Own.observation_space = gym.spaces.Text(3)", "hold nothing that an agent can see"),
        ("Own.observation_space = gym.spaces.Sequence(gym.spaces.Discrete(2))", "a Sequence space.*no fixed size"),
        ("Own.observation_space = gym.spaces.Graph(gym.spaces.Discrete(2), None)", "a Graph space.*no fixed size"),
        ("Own.observation_space = gym.spaces.OneOf([gym.spaces.Discrete(2)])", "a OneOf space.*no fixed size"),
        (
            "Own.observation_space = gym.spaces.Dict(a=gym.spaces.Dict(b=gym.spaces.Sequence(gym.spaces.Discrete(2))))",
            r"observation\['a'\]\['b'\] is a Sequence space",
        ),
        (f"Own.observation_space = {image}", "cannot append a previous action"),
        ("Own = lambda: 3", "is of type int, not gymnasium.Env"),
        ("Own = 3", "has no callable 'Own'"),
        ("del Own", "has no callable 'Own', and registers no such id"),
        ("Own = lambda wanted: None", "missing 1 required positional argument: 'wanted'"),
    ]
    for number, (change, says) in enumerate(changes):
        module = f"own_env_{number}"
        argv = [
            "train",
            *SMALL[2:],
            "--env",
            f"{module}:Own",
            *(["--previous-action", "True"] if image in change else []),
        ]
        yield _case("own environment", argv, says, _file(f"{module}.py", _OWN + change + "\n"), change)
    fine = _file("own_env_fine.py", _OWN)
    own = ["train", *SMALL[2:], "--env", "own_env_fine:Own"]
    for extra, says in (
        (["--env-options", "size", "3"], "with options {'size': 3}.*unexpected keyword|takes no arguments"),
        (["--max-episode-steps", "0"], "max_episode_steps must be at least 1, got 0"),
        (["--observation", "image"], "hold no image"),
        (["--observation", "picture"], "'picture'"),
    ):
        yield _case("own environment", [*own, *extra], says, fine)
    device = ["train", *DEVICE, "--max-episode-steps", "3"]
    yield _case("own environment", device, "max_episode_steps 3 is for host environments")
    for name, says in (
        ("MiniGrid-MemoryS7-v0", "minigrid"),
        ("BabyAI-GoToObj-v0", "minigrid"),
        ("json-Thing-v0", "use --env json:json-Thing-v0"),
    ):
        yield _case("own environment", ["train", "--env", name], says)


_MONOID = """
import equinox as eqx
import jax.numpy as jnp
from memoroids import Memoroid, Monoid

class Own(Monoid):
    size: int = eqx.field(static=True)

    def identity(self):
        return jnp.zeros(self.size)

    def combine(self, left, right):
        return left + right

class Memory(Memoroid):
    input_size: int = eqx.field(static=True)
    output_size: int = eqx.field(static=True)

    def __init__(self, input_size, output_size, *, key):
        self.input_size, self.output_size = input_size, output_size

    @property
    def monoid(self):
        return Own(self.output_size)

    def lift(self, x, begin):
        return x

    def readout(self, h, x, begin):
        return h

"""
"""The beginning of a module with a memory, of which each case changes a method."""


def _own_memories() -> Iterator[Case]:
    for number, (change, says) in enumerate(
        (
            (
                "Own.combine = lambda self, left, right: left / 2 + right",
                "breaks 'left identity|breaks 'assoc|right iden",
            ),
            ("Own.combine = lambda self, left, right: jnp.tanh(left + right)", "Own breaks '"),
            ("Own.combine = lambda self, left, right: left - right", "Own breaks '"),
            ("Own.identity = lambda self: jnp.ones(self.size)", "Own breaks '.*identity"),
            ("Memory.readout = lambda self, h, x, begin: h / 0", "breaks 'finite'"),
            ("Memory.readout = lambda self, h, x, begin: h[:1]", "."),
            ("Memory.lift = lambda self, x, begin: x / 0", "."),
        )
    ):
        module = f"own_memory_{number}"
        argv = ["train", *SMALL, "--memory", f"{module}:Memory"]
        yield _case(
            "own memory", argv, f"memory '{module}:Memory'.*({says})", _file(f"{module}.py", _MONOID + change), change
        )


def _memories() -> Iterator[Case]:
    for name in ("lruu", "LRU2", "transformer", " ", "../lru", "lru "):
        yield _case("memory", ["train", "--memory", name], f"unknown memory {re.escape(repr(name))}")
    yield _case("memory", ["train", "--memory="], "memory")
    for name in (
        "no_such_module:build",
        "memoroids:nothing",
        "json:__name__",
        "json:",
        ":build",
        ":",
        "a..b:c",
        "json:a:b",
    ):
        yield _case("memory", ["train", "--memory", name], f"memory {re.escape(repr(name))}")
    for number, (text, says) in enumerate(
        (
            ("raise RuntimeError('first\\nsecond')", "wrong_memory_0.*first second"),
            ("def build(:", "wrong_memory_1.*invalid syntax"),
            ("build = 3", "wrong_memory_2 has no callable 'build'"),
            ("def build(*a, **k):\n    raise RuntimeError('no\\nmemory')", "wrong_memory_3:build'.*no memory"),
            ("def build(*a, **k):\n    return None", "wrong_memory_4:build"),
            ("def build():\n    return None", "wrong_memory_5:build.*argument"),
            ("import sys\nsys.exit(3)", "wrong_memory_6"),
            ("def build(*a, **k):\n    raise SystemExit(3)", "wrong_memory_7"),
        )
    ):
        module = f"wrong_memory_{number}"
        argv = ["train", *SMALL, "--memory", f"{module}:build"]
        yield _case("memory", argv, says, _file(f"{module}.py", text), text.splitlines()[-1].strip())


def _sizes() -> Iterator[Case]:
    for memory, sizes in (
        ("ffm", "state_size 3"),
        ("gru", "layers 2"),
        ("lru", "state_size 0"),
        ("lru", "state_size -4"),
        ("lru", "layers 1.5"),
        ("lru", "layers 0"),
        ("lru", "r_min 2.0"),
        ("lru", "layers two"),
        ("s5", "blocks [7]"),
        ("s5", "blocks 7"),
        ("mlp", "key 3"),
        ("lru", "input_size 3"),
        ("mlp", "nothing 3"),
    ):
        argv = ["train", *SMALL, "--memory", memory, "--memory-sizes", *sizes.split()]
        yield _case("memory sizes", argv, rf"memory '{memory}' and --memory-sizes .*{sizes.split()[0]} ")
    for option in ("bogus 3", "k many", "num_decks -1", "num_decks 0", "render_mode 3", "num_decks nan"):
        argv = ["train", *SMALL, "--env-options", *option.split()]
        yield _case("env options", argv, f"{option.split()[0]}.*")
    for option in ("bogus 3", "num_decks -1"):
        yield _case("env options", ["train", *DEVICE, "--env-options", *option.split()], option.split()[0])


def _file(name: str, text: str | bytes) -> Callable[[Path], None]:
    def prepare(where: Path) -> None:
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    return prepare


def _directory(name: str) -> Callable[[Path], None]:
    return lambda where: (where / name).mkdir(parents=True)


def _all(*steps: Callable[[Path], None]) -> Callable[[Path], None]:
    def prepare(where: Path) -> None:
        for step in steps:
            step(where)

    return prepare


def _train(name: str) -> list[str]:
    return ["train", "--" + name.replace("_", "-")]


def _config(**changes: Any) -> str:
    """The config.json of a small run with some options or fields (`group.field`) changed; `...` deletes a field."""
    config = TrainConfig.of(env="popgym-RepeatFirstEasy-v0", memory="mlp", width=8, num_envs=1, eval_episodes=1)
    values = json.loads(to_json(config))
    for name, value in changes.items():
        group, field = options().get(name) or (name.rpartition(".")[0] or None, name.rpartition(".")[2])
        inner = values if group is None else values[group]
        inner[field] = value
        if value is ...:
            del inner[field]
    return json.dumps(values)


RUN_COMMANDS = ("evaluate", "resume", "sensitivity", "compare", "doctor", "export", "look", "record")


def _places(tmp: Path) -> Iterator[Case]:
    for command in RUN_COMMANDS:
        for path in ("nowhere", "", "run/config.json", str(tmp / "absent")):
            yield _case("no run", [command, path], f"{re.escape(path) or '.'} holds no run")
        yield _case("no run", [command, "run"], "run holds no run", _file("run", "a file"), "a file")
        yield _case("no run", [command, "run"], "run holds no run", _directory("run"), "empty")
        yield _case("no run", [command, "run"], "run/config.json", _directory("run/config.json"), "directory")
        yield _case("no run", [command, "a\0b"], "a.*b", note="NUL")
    for path in ("nowhere", "run/config.json", str(tmp / "absent")):
        yield _case("no run", ["watch", path], f"{re.escape(path)} is no directory")
    yield _case("no run", ["watch", ""], r"\. holds no run")
    yield _case("no run", "watch", "runs is no directory")
    yield _case("no run", ["watch", "a\0b"], "a.*b", note="NUL")
    for path in ("nowhere", "", str(tmp / "absent")):
        yield _case("no grid", ["report", path], f"{re.escape(path) or '.'} holds no grid")
    yield _case("no grid", "report grid", "grid holds no grid", _file("grid", "a file"), "a file")
    yield _case("no grid", "report grid", "grid holds no grid", _directory("grid"), "empty")
    yield _case("no grid", "report grid", "grid/grid.json", _directory("grid/grid.json"), "directory")
    for note, text in (("empty file", ""), ("list", "[]"), ("binary", b"\xff\xfe\x00"), ("object", "{}"), ("3", "3")):
        yield _case("no grid", "report grid", "grid/grid.json", _file("grid/grid.json", text), note)


def _damaged_configs() -> Iterator[Case]:
    healthy = _config()
    deep = "[" * 100_000
    damages: list[tuple[str, str | bytes, str]] = [
        ("empty", "", "run/config.json"),
        ("truncated", healthy[:200], "run/config.json"),
        ("not JSON", "env = CartPole", "run/config.json"),
        ("binary", bytes(range(128, 256)), "run/config.json"),
        ("UTF-16", healthy.encode("utf-16"), "run/config.json"),
        ("a list", "[1, 2]", "run/config.json.*list"),
        ("a number", "3", "run/config.json.*int"),
        ("null", "null", "run/config.json.*NoneType"),
        ("nested deep", deep, "run/config.json"),
        ("an integer of 5000 digits", '{"seed": ' + "9" * 5000 + "}", "run/config.json"),
        ("empty object", "{}", "run/config.json.*settings of schema 1"),
        (
            "unknown field",
            _config(**{"network.widht": 3}),
            "config.json.*unknown field network.widht; did you mean width",
        ),
        ("missing field", _config(seed=...), "run/config.json.*missing field seed"),
        ("width a string", _config(width="8"), "run/config.json.*width.*'8'"),
        ("width true", _config(width=True), "run/config.json.*width.*True"),
        ("width 0", _config(width=0), "run/config.json.*width must be at least 1"),
        ("seed null", _config(seed=None), "run/config.json.*seed.*None"),
        ("memory a list", _config(memory=["lru"]), "run/config.json.*memory"),
        ("memory unknown", _config(memory="lruu"), "lruu"),
        ("env unknown", _config(env="Nothing-v9"), "Nothing-v9"),
        ("algorithm unhashable", _config(algorithm={"a": 1}), "run/config.json.*algorithm"),
        ("step_periods a string", _config(step_periods="4"), "run/config.json.*step_periods"),
        ("agent a list", _config(agent=[]), "run/config.json.*agent must be an object"),
        ("agent empty", _config(agent={}), "run/config.json.*missing field agent"),
        ("a norm of NaN", _config(**{"agent.max_grad_norm": float("nan")}), "run/config.json.*max_grad_norm.*nan"),
        ("a discount of 2", _config(**{"agent.discount": 2}), "run/config.json.*discount.*2"),
        ("agent.bogus", _config(**{"agent.bogus": 2}), "run/config.json.*unknown field agent.bogus"),
        ("algorithm unknown", _config(algorithm="sac"), "run/config.json.*unknown algorithm 'sac'"),
        ("replay missing", _config(replay=...), "run/config.json.*missing field replay"),
        ("memory_sizes a list", _config(memory_sizes=[1]), "run/config.json.*memory_sizes"),
        ("env options of NaN", _config(env_options={"k": float("nan")}), "run/config.json.*--env-options k must be"),
        ("another schema", _config(version="0.0.1", schema=1), "written by memoroids 0.0.1 with settings of schema 1"),
    ]
    for number, (note, text, says) in enumerate(damages):
        # Two of the commands for each damage, in rotation: all of them read the settings with the same function.
        for command in (RUN_COMMANDS[number % len(RUN_COMMANDS)], RUN_COMMANDS[(number + 1) % len(RUN_COMMANDS)]):
            if note in ("memory unknown", "env unknown") and command in ("compare", "doctor"):
                continue  # these work with unknown memories and environments
            yield _case("damaged config", [command, "run"], says, _file("run/config.json", text), note)


def _damaged_runs() -> Iterator[Case]:
    healthy = _file("run/config.json", _config())
    header = ",".join(FIELDS)
    for note, text, says in (
        ("empty", "", "run/metrics.csv"),
        ("other header", "a,b\n1,2\n", "run/metrics.csv: the header"),
        ("short line", f"{header}\n1,2\n", "run/metrics.csv: line 2"),
        ("words", f"{header}\n{','.join(['x'] * len(FIELDS))}\n", "run/metrics.csv: line 2.*'x'"),
        ("binary", bytes(range(128, 256)), "run/metrics.csv"),
        ("NUL", f"{header}\n\0\n", "run/metrics.csv"),
        ("a field of 200,000 letters", f"{header}\n{'x' * 200_000}\n", "run/metrics.csv"),
    ):
        yield _case("damaged metrics", "compare run", says, _all(healthy, _file("run/metrics.csv", text)), note)
    yield _case("damaged metrics", "compare run", "run.*metrics.csv", healthy, "missing")
    yield _case(
        "damaged metrics", "compare run", "run.*metrics.csv", _all(healthy, _directory("run/metrics.csv")), "directory"
    )
    rows = _all(healthy, _file("run/metrics.csv", header + "\n"))
    for note, text in (
        ("truncated", "{"),
        ("list", "[1]"),
        ("no interval", '{"final_return": 1}'),
        ("words", '{"final_return": "x", "final_interval": [1, 2]}'),
        ("binary", bytes(range(128, 256))),
    ):
        yield _case(
            "damaged summary", "compare run", "run/summary.json", _all(rows, _file("run/summary.json", text)), note
        )
    yield _case("damaged summary", "compare run --output no/such.png", "no/such.png", rows)
    yield _case("damaged summary", "compare run --output curve.nothing", "'nothing'", rows)
    for command in ("evaluate", "sensitivity"):
        yield _case("checkpoint", [command, "run"], "no checkpoint in run/checkpoints", healthy, "none")
        empty = _all(healthy, _directory("run/checkpoints"))
        yield _case("checkpoint", [command, "run"], "no checkpoint in run/checkpoints", empty, "empty directory")
        file = _all(healthy, _file("run/checkpoints", ""))
        yield _case("checkpoint", [command, "run"], "no checkpoint in run/checkpoints", file, "a file")
        several = _file("run/config.json", _config(env="device:RepeatFirstEasy", seeds=2))
        yield _case("checkpoint", [command, "run"], "run holds 2 runs: name one", several, "two seeds")
    step = "run/checkpoints/000000006"
    for note, damage in (
        ("no manifest", _directory(step)),
        ("empty manifest", _file(f"{step}/manifest.json", "")),
        ("binary manifest", _file(f"{step}/manifest.json", bytes(range(128, 256)))),
        ("a manifest of nothing", _file(f"{step}/manifest.json", "{}")),
        ("a list for a manifest", _file(f"{step}/manifest.json", "[]")),
    ):
        for command in ("evaluate", "resume"):
            yield _case("checkpoint", [command, "run"], f"unreadable checkpoint {step}", _all(healthy, damage), note)


def _reproductions() -> Iterator[Case]:
    for line, says in (
        ("figure9", "'figure9'"),
        ("Figure4", "'Figure4'"),
        ("4", "'4'"),
        ("figure4 figure6", "figure6"),
        ("figure4 --scale huge", "'huge'"),
        ("figure4 --tasks RepeatFristEasy", "RepeatFristEasy"),
        ("figure4 --tasks RepeatFirstEasy RepeatFirstEasy", "twice"),
        ("figure4 --memories lruu", "'lruu'"),
        ("figure4 --memories no_such_module:build", "no_such_module"),
        ("figure4 --segment-lengths 0", "segment_lengths must be at least 1, got 0"),
        ("figure4 --segment-lengths 10 10", "twice"),
        ("figure4 --segment-lengths ten", "--segment-lengths.*'ten'"),
        ("figure4 --segment-state old", "'old'"),
        ("figure4 --segment-count few", "'few'"),
        ("figure4 --ablations los", "'los'"),
        ("figure4 --ablations loss loss", "twice"),
        ("figure4 --seeds 0", "seeds must be at least 1, got 0"),
        ("figure4 --seeds -2", "seeds must be at least 1, got -2"),
        ("figure4 --seeds two", "--seeds.*'two'"),
        ("figure4 --jobs 0", "jobs must be at least 1, got 0"),
        ("figure4 --random-episodes -1", "random_episodes must be at least 0, got -1"),
        ("figure4 --train-episodes 0", "train_episodes must be at least 1, got 0"),
        ("figure5-returns --seeds 2", "takes --scale and --output only, got seeds"),
        ("figure5-returns --tasks RepeatFirstEasy", "takes --scale and --output only, got tasks"),
        ("popgym --segment-lengths 10", "segment"),
        ("figure4 --retry=perhaps", "perhaps"),
        ("figure4 --steps 100", "figure4 counts episodes: use train_episodes instead of steps"),
        ("figure6 --algorithms ppo", "algorithms is for reproduce suite, got it for figure6"),
        ("suite --steps 0", "steps must be at least 1, got 0"),
        ("suite --tasks cartpol", "unknown environment of the suite 'cartpol'.*cartpole"),
        ("suite --algorithms pppo", "'pppo'"),
        ("suite --memories lruu", "'lruu'"),
        ("suite --tasks tmaze-10 tmaze-10", "twice"),
        ("suite --scale paper", "the scales smoke and laptop"),
        ("suite --segment-lengths 10", "takes no segment_lengths"),
        ("suite --train-episodes 10", "takes no train_episodes"),
    ):
        yield _case("reproduce", f"reproduce {line}", says)
    for line, says in (
        ("CartPole-v1", "CartPole-v1 has no twin of its own: name an environment that hides nothing with --twin"),
        ("device:RepeatFirstEasi --twin CartPole-v1", "RepeatFirstEasi"),
        ("CartPole-v1 --twin CartPole-v1", "the twin of CartPole-v1 must be another environment"),
        ("device:RepeatFirstEasy --memories lru lru", "named once each"),
        ("device:RepeatFirstEasy --memories mlp", "without mlp, which is compared anyway"),
        ("device:RepeatFirstEasy --memories lruu", "'lruu'"),
        ("device:RepeatFirstEasy --algorithm pppo", "'pppo'"),
        ("device:RepeatFirstEasy --seeds 0", "seeds must be at least 1, got 0"),
        ("device:RepeatFirstEasy --steps many", "--steps.*'many'"),
    ):
        yield _case("gap", f"gap {line}", says)
    for text, says in (("[axes]\nlearning_rat = [1]", "unknown setting .learning_rat"), ("[axes", "grid.toml: .*']'")):
        yield _case("grid", "grid grid.toml", says, _file("grid.toml", text), text)
    yield _case("grid", "grid grid.toml", "grid.toml cannot be read")
    yield _case("tune", "tune tune.toml", "tune.toml cannot be read")
    yield _case("tune", "tune tune.toml", "names no setting", _file("tune.toml", "trials = 3"), "no search")
    yield _case("tune", "tune tune.toml --jobs 0", "jobs must be at least 1, got 0")
    yield _case("tune", "tune tune.toml --executor rays", "invalid choice 'rays'|'rays'.*ray")
    searched = _file("tune.toml", "[search]\nwidth = [8, 16]")

    def beside(where: Path) -> None:
        searched(where)
        _file("out/notes.txt", "mine")(where)

    yield _case("tune", "tune tune.toml --output out", "out is not an empty directory", beside, "other things")
    yield _case("grid", "grid grid.toml --executor kubernetes", "'kubernetes'")
    grid = _file("grid.toml", "seeds = 1")
    yield _case("grid", "grid grid.toml --resources time 3", "resources are for the executors slurm and ray", grid)
    yield _case("grid", "grid grid.toml --resources time", "pairs of a name and a value")
    yield _case("grid", "grid grid.toml --jobs 0", "jobs must be at least 1, got 0")
    yield _case("grid", "grid grid.toml --together 0", "together must be at least 1, got 0")
    start = "reproduce figure4 --scale smoke --output grid"
    yield _case("reproduce", start, "grid is not an empty directory", _file("grid/notes.txt", "mine"), "other things")
    yield _case("reproduce", start, "grid", _file("grid", "a file"), "a file")
    yield _case("reproduce", f"{start}/inside", "grid", _file("grid", "a file"), "under a file")
    yield _case("reproduce", start, "grid/grid.json", _file("grid/grid.json", "{"), "damaged")
    yield _case("reproduce", start, "grid/grid.json", _file("grid/grid.json", b"\xff\xfe"), "binary")
    yield _case(
        "reproduce", "reproduce figure5-returns --output grid", "grid holds a grid", _file("grid/grid.json", "{}")
    )


def _benches() -> Iterator[Case]:
    for what in ("speed", "Update", "long-returns", "update tape"):
        yield _case("bench", f"bench {what}", f"'?{what.split()[-1]}'?")
    for repeats in ("0", "-1"):
        yield _case("bench", f"bench update --repeats {repeats}", f"repeats must be at least 1, got {repeats}")
    for repeats in ("many", "1.5", "nan"):
        yield _case("bench", f"bench update --repeats {repeats}", f"--repeats.*'{repeats}'")
    for what in ("env", "Envs", "memory", "all", "envs presets"):
        yield _case("list", f"list {what}", f"'?{what.split()[-1]}'?")


def _run_directories() -> Iterator[Case]:
    start = ["train", *SMALL, "--run-dir"]
    run = _file("run/config.json", _config())
    yield _case("run directory", [*start, "run"], "run holds another run", run, "another run")
    yield _case("run directory", [*start, "run"], "cannot write to run: ", _file("run", "a file"), "a file")
    yield _case("run directory", [*start, "run/in"], "cannot write to run/in: ", _file("run", "a file"), "under a file")
    yield _case("run directory", [*start, "run"], "run", _directory("run/lock"), "its lock a directory")
    yield _case("run directory", ["train", *SMALL], "runs", _file("runs", "a file"), "runs is a file")
    yield _case("run directory", ["train", *DEVICE, "--run-dir", "run"], "run holds another run", run, "on device")
    yield _case(
        "run directory", ["train", *DEVICE, "--run-dir", "run"], "write to run: ", _file("run", ""), "a file, device"
    )
    yield _case("run directory", [*start, "/proc/memoroids"], "/proc/memoroids", note="cannot be made")


def cases(tmp: Path) -> list[Case]:
    """Every invalid command; `tmp` is a directory that does not exist."""
    found = [
        *_commands(),
        *_unknown_options(),
        *_misspelt_options(),
        *_missing_values(),
        *_wrong_types(),
        *_ranges(),
        *_not_finite(),
        *_huge(),
        *_contradictions(),
        *_environments(),
        *_own_environments(),
        *_own_memories(),
        *_memories(),
        *_sizes(),
        *_places(tmp),
        *_damaged_configs(),
        *_damaged_runs(),
        *_reproductions(),
        *_benches(),
        *_run_directories(),
    ]
    twice = [name for name, count in Counter(case.name for case in found).items() if count > 1]
    assert not twice, f"two cases are one: {twice}"
    return found


def run(case: Case, where: Path) -> tuple[int, str, str]:
    """Runs a command in this process and the empty directory `where`. Returns exit status, standard output and error.

    Raises `Began` if the command would start its work.
    """
    if case.prepare is not None:
        case.prepare(where)
    out, err = io.StringIO(), io.StringIO()
    before, path, writes = Path.cwd(), list(sys.path), sys.dont_write_bytecode
    os.chdir(where)
    sys.dont_write_bytecode = True  # importing the module of a case would leave a cache file
    importlib.invalidate_caches()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            for owner in (HostRun, DeviceRun, benchmarks, returns, runner):
                stack.enter_context(mock.patch.object(owner, "run", _began))
            try:
                memoroids(case.argv)
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    finally:
        os.chdir(before)
        sys.path[:], sys.dont_write_bytecode = path, writes
    return code, out.getvalue(), err.getvalue()


def _left(where: Path) -> dict[str, bytes | None]:
    # The lock file of an existing run stays: if it were removed, two processes could each hold a lock.
    found = (path for path in where.rglob("*") if path.relative_to(where) != Path("run/lock"))
    return {str(path.relative_to(where)): path.read_bytes() if path.is_file() else None for path in found}


def judge(case: Case, where: Path) -> str | None:
    """Runs a command in the empty directory `where`. Returns what is wrong with its outcome, or None."""
    prepared: dict[str, bytes | None] = {}

    def prepare(where: Path) -> None:
        if case.prepare is not None:
            case.prepare(where)
        prepared.update(_left(where))

    try:
        code, _, said = run(dataclasses.replace(case, prepare=prepare), where)
    except Began:
        return "accepted: the command started its work"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"raised {type(error).__name__}: {str(error)[:300]}"
    return complaint(case, code, said) or _difference(prepared, _left(where))


def complaint(case: Case, code: int, said: str) -> str | None:
    """What is wrong with an exit status and standard error, or None."""
    if code == 0:
        return f"accepted: exit status 0, {said[:300]!r}"
    if not re.fullmatch(r"memoroids: [^\n]*\S[^\n]*\n", said) or "Traceback" in said:
        return f"not one line: {said[:600]!r}"
    if len(said) > 2_000:
        return f"a line of {len(said)} characters: {said[:200]!r}"
    return None if re.search(case.says, said) else f"does not match {case.says!r}: {said[:400]!r}"


def _difference(before: dict[str, bytes | None], after: dict[str, bytes | None]) -> str | None:
    changed = sorted(name for name in {*before, *after} if before.get(name, b"-") != after.get(name, b"-"))
    return f"left behind or changed: {', '.join(changed)}" if changed else None


def main() -> int:
    """Runs every case and prints the counts by family and each failure. Returns whether there are failures."""
    begun = time.perf_counter()
    counts: dict[str, list[int]] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        tmp = Path(directory)
        found = [case for case in cases(tmp / "none") if not sys.argv[1:] or case.family in sys.argv[1:]]
        for number, case in enumerate(found):
            where = tmp / str(number)
            where.mkdir()
            start = time.perf_counter()
            wrong = judge(case, where)
            if (took := time.perf_counter() - start) > 3:
                print(f"{took:.1f} s: {case.name[:150]}", flush=True)
            counted = counts.setdefault(case.family, [0, 0])
            counted[0] += 1
            counted[1] += wrong is None
            if wrong is not None:
                failures.append(f"{case.name[:200]}\n    {wrong}")
    print(f"{'family':20}{'cases':>7}{'passed':>8}")
    for family, (total, passed) in counts.items():
        print(f"{family:20}{total:7}{passed:8}")
    print(f"{'all':20}{len(found):7}{len(found) - len(failures):8}   {time.perf_counter() - begun:.0f} s\n")
    print("\n".join(failures))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
