"""Names of environments: short names and full ids, on host and device, and of a user's own."""

import copy
import difflib
import importlib
import importlib.util
import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym

from memoroids._util.imports import import_named, name_of
from memoroids._util.messages import one_line

DEVICE_PREFIX = "device:"
"""The prefix of the names of JAX environments."""


def popgym_ids() -> list[str]:
    """The ids of POPGym's tasks; registers them with Gymnasium."""
    importlib.import_module("popgym")
    return [name for name in gym.registry if is_popgym(name)]


def is_popgym(id_: str) -> bool:
    """Whether an id belongs to POPGym, so that its short name is enough."""
    return id_.startswith("popgym-")


def short_name(id_: str) -> str:
    """An id without POPGym's prefix and without the version 0, such as RepeatFirstEasy."""
    return id_.removeprefix("popgym-").removesuffix("-v0")


def is_atari(id_: str) -> bool:
    """Whether an id belongs to the Arcade Learning Environment, such as ALE/Asteroids-v5."""
    return id_.lower().startswith("ale/")


def _register_atari(name: str) -> None:
    try:
        # Gymnasium's preprocessing scales images with OpenCV.
        ale, _ = importlib.import_module("ale_py"), importlib.import_module("cv2")
    except ImportError as error:
        raise ValueError(f"{name} needs the extra atari ({error}): pip install 'memoroids[atari]'") from error
    # Otherwise every environment prints a banner.
    ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)


def resolve_id(name: str) -> str:
    """The Gymnasium id of `name`: `name` itself, or the POPGym id of which it is the short form, as RepeatFirstEasy.

    "package.module:Id-v0" and "package.module:factory", of which the module is still to be imported, stay as they are.

    Raises `ValueError`, with the most similar ids, if there is no such environment, and if a package that it needs is
    not installed or not yet imported.
    """
    if name.count(":") == 1:
        return name
    if is_atari(name):
        _register_atari(name)
    popgym = popgym_ids()
    short = {short_name(id_).lower(): id_ for id_ in popgym}
    if name.lower() in short:
        return short[name.lower()]
    if name in gym.registry:
        return name
    _check_packages(name)
    lower = {known.lower(): known for known in (*short, *gym.registry)}
    known = {key: short.get(key, value) for key, value in lower.items()}
    near = [known[match] for match in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "`memoroids list envs` shows POPGym's"
    raise ValueError(f"unknown environment {name!r}: {hint}")


NAVIGATION = ("labyrinthescape", "labyrinthexplore")
"""The beginnings of the short names of POPGym's navigation tasks, in lower case."""
PACKAGES = {"minigrid": "minigrid", "babyai": "minigrid", "miniworld": "miniworld", "popjym": "popjym"}
"""What ids begin with → the package that registers them, for packages that are named otherwise or not installed."""


def _check_packages(name: str) -> None:
    """Raises `ValueError` if the package that registers `name` is not installed, or would have to be imported."""
    if short_name(name).lower().startswith(NAVIGATION):
        raise ValueError(f"{name} needs the extra navigation: pip install 'memoroids[navigation]'")
    beginning = re.split(r"[/-]", name, maxsplit=1)[0].lower()
    package = PACKAGES.get(beginning, beginning.replace("-", "_"))
    if not package.isidentifier() or package in ("gymnasium", "popgym"):
        return
    if importlib.util.find_spec(package) is not None and beginning != name.lower():
        raise ValueError(f"{name} is not known before its package is imported: use --env {package}:{name}")
    if beginning in PACKAGES:
        raise ValueError(
            f"{name} needs the package {package}: pip install {package}, and then use --env {package}:{name}"
        )


def own_factory(name: str) -> Callable[..., Any] | None:
    """What makes the host environment "package.module:factory"; None if `name` is an id that Gymnasium makes.

    Raises `ValueError` if the module cannot be imported, or neither registers the id nor has such a callable.
    """
    module, colon, attribute = name.partition(":")
    if not colon or is_atari(name):
        return None
    made = import_named(name, "environment", "callable", lambda found: found is None or callable(found))
    if attribute in gym.registry or (made is None and re.search(r"-v\d+$|/", attribute)):
        return None
    if made is None:
        raise ValueError(f"environment {name!r}: {module} has no callable {attribute!r}, and registers no such id")
    return made


def environment_name(env: Any) -> str:
    """The name of an environment that is passed in Python: an environment, or a function or class that makes one.

    An environment for the host is copied for each use; one for the device is a pure function. Raises `ValueError` if
    it cannot be copied, and for anything else.
    """
    if isinstance(env, gym.Env):
        try:
            copy.deepcopy(env)
        except Exception as error:
            raise ValueError(
                f"the environment {type(env.unwrapped).__name__} cannot be copied ({one_line(error)}): pass a function "
                "that makes it"
            ) from error

        def copied() -> gym.Env:
            return copy.deepcopy(env)

        copied.__qualname__ = type(env.unwrapped).__name__
        return name_of(copied)
    from memoroids.envs.device.environment import DeviceEnv  # imports JAX, which host environments do without

    if isinstance(env, DeviceEnv):

        def same() -> DeviceEnv:
            return env

        same.__qualname__ = type(env).__name__
        return DEVICE_PREFIX + name_of(same)
    if not callable(env):
        raise ValueError(f"env must be a name, an environment or a function that makes one, got {env!r:.100}")
    on_device = isinstance(env, type) and issubclass(env, DeviceEnv)
    return DEVICE_PREFIX * on_device + name_of(env)


def resolve(name: str) -> str:
    """The full id of an environment: the Gymnasium id on the host, `device:` and the name on device.

    Raises `ValueError`, with the most similar ids, if a host environment is unknown. The name of a device environment
    is checked only when it is made.
    """
    if not name.startswith(DEVICE_PREFIX):
        return resolve_id(name)
    from memoroids.envs.device.tasks import DEVICE, OBSERVED  # imports JAX, which host environments do without

    inner = name.removeprefix(DEVICE_PREFIX)
    return DEVICE_PREFIX + {known.lower(): known for known in (*DEVICE, *OBSERVED)}.get(inner.lower(), inner)


def task_of(id_: str) -> str:
    """The short name of an id, the same on host and device, such as RepeatFirstEasy."""
    return short_name(id_.removeprefix(DEVICE_PREFIX))
