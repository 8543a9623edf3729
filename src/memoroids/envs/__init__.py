"""Environments: host (Gymnasium, POPGym, Atari)."""

from memoroids.envs.host import EnvironmentFault as EnvironmentFault
from memoroids.envs.host import HostEnv as HostEnv
from memoroids.envs.host import is_atari as is_atari
from memoroids.envs.host import popgym_ids as popgym_ids
from memoroids.envs.host import resolve_id as resolve_id
from memoroids.envs.host import short_name as short_name
