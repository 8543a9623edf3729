"""make_device: the meaning of names and options, and the one-line errors for invalid ones."""

import subprocess
import sys

import jax
import pytest

from memoroids.envs.device import DEVICE, DeviceEnv, make_device


def says(name: str, options: dict | None = None) -> str:
    with pytest.raises(ValueError) as error:
        make_device(name, options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module, as a user would, and makes it importable."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, code: str) -> None:
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return write


def test_short_names_are_found_in_any_case():
    for name in DEVICE:
        assert make_device(name.upper()) == make_device(name)


def test_an_unknown_name_is_answered_with_the_nearest():
    assert says("RepeatFristEasy") == "unknown device environment 'RepeatFristEasy'; did you mean RepeatFirstEasy?"
    assert says("VelocityOnlyCartPoleEasy".replace("Easy", "Esy")).endswith("did you mean VelocityOnlyCartpoleEasy?")
    assert says("zzz") == "unknown device environment 'zzz'"


def test_options_are_popgyms_and_replace_a_levels_own():
    env = make_device("RepeatPreviousHard", {"k": 10})
    assert (env.k, env.num_decks, env.max_length) == (10, 3, 155)
    assert make_device("CountRecallEasy", {"deck_type": "ranks", "error_clamp": 2.0}).action_space.n == 5
    assert make_device("VelocityOnlyCartpoleEasy", {"max_episode_length": 7}).max_length == 7
    assert make_device("MultiarmedBanditEasy", {"num_bandits": 3, "episode_length": 5}).action_space.n == 3
    assert make_device("MineSweeperEasy", {"difficulty": "hard"}).max_length == 54


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("RepeatPreviousEasy", {"kk": 3}, "environment 'RepeatPreviousEasy' has no option 'kk'; did you mean k?"),
        ("RepeatFirstEasy", {"sigma": 3}, "environment 'RepeatFirstEasy' has no option 'sigma'; there are num_decks"),
        ("RepeatPreviousEasy", {"k": 52}, "k must be from 1 to 51 with num_decks 1, got 52"),
        ("RepeatPreviousEasy", {"k": 0}, "k must be from 1 to 51 with num_decks 1, got 0"),
        ("AutoencodeEasy", {"num_decks": 0}, "num_decks must be from 1 to 1260, got 0"),
        ("CountRecallEasy", {"deck_type": "jokers"}, "deck_type must be one of colors, suits, ranks, got 'jokers'"),
        ("PositionOnlyCartPoleEasy", {"max_episode_length": 0}, "max_episode_length must be at least 1, got 0"),
        ("PositionOnlyPendulumEasy", {"max_episode_length": 0}, "max_episode_length must be at least 1, got 0"),
        (
            "MultiarmedBanditEasy",
            {"num_bandits": 0},
            "num_bandits and episode_length must be at least 1, got 0 and 200",
        ),
        ("MineSweeperEasy", {"difficulty": "x"}, "difficulty must be one of easy, medium, hard, got 'x'"),
    ],
)
def test_options_that_are_wrong(name, options, message):
    assert says(name, options).endswith(message)


OWN = """
import equinox as eqx, gymnasium as gym, jax.numpy as jnp
from memoroids.envs.device import DeviceEnv, Step

class Coin(DeviceEnv):
    max_length: int = eqx.field(static=True, default=3)
    min_length: int = eqx.field(static=True, default=3)
    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Discrete(2)

    def reset(self, key):
        return jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)

    def step(self, state, action, key):
        return state + 1, Step(action, jnp.zeros(()), jnp.zeros((), bool), state + 1 == self.max_length)

def broken(**options):
    raise RuntimeError("no\\nsuch file")

def a_number():
    return 3

not_callable = 3
"""


def test_a_users_own_factory(module):
    module("my_envs", OWN)
    env = make_device("my_envs:Coin", {"max_length": 5, "min_length": 2})
    assert isinstance(env, DeviceEnv) and (env.max_length, env.min_length) == (5, 2)
    assert env.reset(jax.random.key(0))[1] == 0
    assert says("my_envs:Coin", {"max_lenght": 3}).endswith("'max_lenght'; did you mean max_length?")
    assert says("my_envs:Coin", {"max_length": 2}) == (
        "environment 'my_envs:Coin': needs 1 <= min_length <= max_length, got 3 and 2"
    )
    assert says("my_envs:broken", {"a": 1}) == (
        "cannot make environment 'my_envs:broken' with options {'a': 1}: RuntimeError: no such file"
    )
    assert (
        says("my_envs:a_number") == "environment 'my_envs:a_number' is of type int, not memoroids.envs.device.DeviceEnv"
    )
    assert says("my_envs:not_callable") == "environment 'my_envs:not_callable': my_envs has no callable 'not_callable'"
    assert says("my_envs:Coins") == "environment 'my_envs:Coins': my_envs has no callable 'Coins'"


def test_a_module_that_cannot_be_imported(module):
    module("my_broken", "1 / 0")
    assert says("my_broken:Coin") == (
        "environment 'my_broken:Coin': cannot import my_broken: ZeroDivisionError: division by zero"
    )
    assert "cannot import no_such_module" in says("no_such_module:Coin")


def test_no_other_library_is_imported_for_a_short_name():
    heavy = ("popgym", "gymnax", "navix", "xminigrid", "flax")
    code = (
        "import sys; from memoroids.envs.device import make_device; make_device('MineSweeperHard'); "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
