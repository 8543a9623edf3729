"""The registry of agents; settings, command line and tests iterate over it."""

from memoroids._util.imports import import_named
from memoroids._util.messages import suggest
from memoroids.agents.base import AgentType
from memoroids.agents.dqn import DQN
from memoroids.agents.ppo import PPO
from memoroids.agents.pqn import PQN

REGISTRY: dict[str, AgentType] = {"dqn": DQN, "ppo": PPO, "pqn": PQN}
"""Name → agent type."""


def resolve_agent(name: str) -> AgentType:
    """The agent type registered as `name`, or imported from package.module:name. Raises `ValueError` if none."""
    if ":" in name:
        return import_named(name, "algorithm", "AgentType", lambda found: isinstance(found, AgentType))
    if name in REGISTRY:
        return REGISTRY[name]
    raise ValueError(f"unknown algorithm {name!r}{suggest(name, REGISTRY)}")
