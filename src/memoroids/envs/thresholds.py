"""The return from which an environment counts as solved."""

import math
import re
from typing import Any

from memoroids.envs.names import task_of

POPGYM = 0.95
"""The threshold of `SOLVABLE` tasks: the best return is 1."""
SOLVABLE = frozenset(
    {
        "repeatfirst",
        "repeatprevious",
        "countrecall",
        "autoencode",
        "positiononlycartpole",
        "velocityonlycartpole",
        "noisypositiononlycartpole",
    }
)
"""POPGym's tasks in which a policy with a perfect memory comes close to the best return, in small letters."""


def reward_threshold(id_: str, env: Any) -> float | None:
    """The mean return from which an environment counts as solved; None if it does not say.

    `env`: a Gymnasium environment, which has it in its spec, or a `DeviceEnv`, which has it as an attribute. POPGym
    declares none for its tasks, see `SOLVABLE`.
    """
    if re.sub("(easy|medium|hard)$", "", task_of(id_).lower()) in SOLVABLE:
        return POPGYM
    holder = env if hasattr(env, "reward_threshold") else getattr(env, "spec", None)
    try:
        value = float(getattr(holder, "reward_threshold", None))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # none, or a user's own idea of one
        return None
    return value if math.isfinite(value) else None
