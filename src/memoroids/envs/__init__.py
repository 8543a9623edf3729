"""Environments on the host (Gymnasium, POPGym, Atari) and on device (JAX), made by name."""

from memoroids.envs.faults import EnvironmentFault as EnvironmentFault
from memoroids.envs.host.env import HostEnv as HostEnv
from memoroids.envs.names import DEVICE_PREFIX as DEVICE_PREFIX
from memoroids.envs.names import is_atari as is_atari
from memoroids.envs.names import is_popgym as is_popgym
from memoroids.envs.names import popgym_ids as popgym_ids
from memoroids.envs.names import resolve as resolve
from memoroids.envs.names import resolve_id as resolve_id
from memoroids.envs.names import short_name as short_name
from memoroids.envs.names import task_of as task_of
from memoroids.envs.thresholds import reward_threshold as reward_threshold
