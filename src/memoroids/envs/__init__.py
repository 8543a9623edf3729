"""Environments: host (Gymnasium, POPGym, Atari) and device (JAX), by one kind of name."""

from memoroids.envs.device import DEVICE
from memoroids.envs.host import EnvironmentFault as EnvironmentFault
from memoroids.envs.host import HostEnv as HostEnv
from memoroids.envs.host import is_atari as is_atari
from memoroids.envs.host import popgym_ids as popgym_ids
from memoroids.envs.host import resolve_id as resolve_id
from memoroids.envs.host import short_name as short_name

DEVICE_PREFIX = "device:"
"""What the name of a JAX environment begins with."""


def resolve(name: str) -> str:
    """The full id of an environment: Gymnasium's of one on the host, `device:` and its name of one on device.

    Raises `ValueError` with the nearest known ids where a host environment is not known; a device environment's name is
    checked where it is made.
    """
    if not name.startswith(DEVICE_PREFIX):
        return resolve_id(name)
    inner = name.removeprefix(DEVICE_PREFIX)
    return DEVICE_PREFIX + {known.lower(): known for known in DEVICE}.get(inner.lower(), inner)


def task_of(id_: str) -> str:
    """What an id is called where it does not matter who steps it: RepeatFirstEasy, on host or device."""
    return short_name(id_.removeprefix(DEVICE_PREFIX))
