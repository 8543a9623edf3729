"""The error of an environment that misbehaves."""


class EnvironmentFault(RuntimeError):
    """Raised if an environment misbehaves; the message names the environment, the step and the fault."""
