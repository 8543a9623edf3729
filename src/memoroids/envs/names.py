"""Names of environments: short ones and full ids, on host and device."""

import difflib
import importlib

import gymnasium as gym

DEVICE_PREFIX = "device:"
"""What the name of a JAX environment begins with."""


def popgym_ids() -> list[str]:
    """The ids of POPGym's tasks, registered with Gymnasium on the way."""
    importlib.import_module("popgym")
    return [name for name in gym.registry if name.startswith("popgym-")]


def short_name(id_: str) -> str:
    """A POPGym id without its prefix and version, as RepeatFirstEasy; other ids without their version 0."""
    return id_.removeprefix("popgym-").removesuffix("-v0")


def is_atari(id_: str) -> bool:
    """Whether an id is one of the Arcade Learning Environment's, as ALE/Asteroids-v5."""
    return id_.lower().startswith("ale/")


def _register_atari(name: str) -> None:
    try:
        # Gymnasium's preprocessing scales images with OpenCV.
        ale, _ = importlib.import_module("ale_py"), importlib.import_module("cv2")
    except ImportError as error:
        raise ValueError(f"{name} needs the extra atari ({error}): pip install 'memoroids[atari]'") from error
    # Every copy of an environment would print a banner.
    ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)


def resolve_id(name: str) -> str:
    """The Gymnasium id of `name`: itself, or POPGym's where `name` is the short form, as RepeatFirstEasy.

    Raises `ValueError` with the nearest known ids where there is none, and for Atari's without the extra `atari`.
    """
    if name.count(":") == 1:  # "package.module:Id-v0": Gymnasium imports the module, which registers the id
        return name
    if is_atari(name):
        _register_atari(name)
    popgym = popgym_ids()
    short = {short_name(id_).lower(): id_ for id_ in popgym}
    if name.lower() in short:
        return short[name.lower()]
    if name in gym.registry:
        return name
    lower = {known.lower(): known for known in (*short, *gym.registry)}
    known = {key: short.get(key, value) for key, value in lower.items()}
    near = [known[match] for match in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "`memoroids list envs` shows POPGym's"
    raise ValueError(f"unknown environment {name!r}: {hint}")


def resolve(name: str) -> str:
    """The full id of an environment: Gymnasium's of one on the host, `device:` and its name of one on device.

    Raises `ValueError` with the nearest known ids where a host environment is not known; a device environment's name is
    checked where it is made.
    """
    if not name.startswith(DEVICE_PREFIX):
        return resolve_id(name)
    from memoroids.envs.device.tasks import DEVICE  # imports JAX, which a process that steps host environments lacks

    inner = name.removeprefix(DEVICE_PREFIX)
    return DEVICE_PREFIX + {known.lower(): known for known in DEVICE}.get(inner.lower(), inner)


def task_of(id_: str) -> str:
    """What an id is called where it does not matter who steps it: RepeatFirstEasy, on host or device."""
    return short_name(id_.removeprefix(DEVICE_PREFIX))
