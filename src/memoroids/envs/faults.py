"""What an environment does wrong."""


class EnvironmentFault(RuntimeError):
    """An environment that misbehaved: the message names it, the step and what it did."""
