"""Names of environments: short names and full ids, on host and device."""

import difflib
import importlib

import gymnasium as gym

DEVICE_PREFIX = "device:"
"""The prefix of the names of JAX environments."""


def popgym_ids() -> list[str]:
    """The ids of POPGym's tasks; registers them with Gymnasium."""
    importlib.import_module("popgym")
    return [name for name in gym.registry if name.startswith("popgym-")]


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

    Raises `ValueError`, with the most similar ids, if there is no such environment, and for Atari if the extra `atari`
    is not installed.
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
    """The full id of an environment: the Gymnasium id on the host, `device:` and the name on device.

    Raises `ValueError`, with the most similar ids, if a host environment is unknown. The name of a device environment
    is checked only when it is made.
    """
    if not name.startswith(DEVICE_PREFIX):
        return resolve_id(name)
    from memoroids.envs.device.tasks import DEVICE  # imports JAX, which host environments do without

    inner = name.removeprefix(DEVICE_PREFIX)
    return DEVICE_PREFIX + {known.lower(): known for known in DEVICE}.get(inner.lower(), inner)


def task_of(id_: str) -> str:
    """The short name of an id, the same on host and device, such as RepeatFirstEasy."""
    return short_name(id_.removeprefix(DEVICE_PREFIX))
