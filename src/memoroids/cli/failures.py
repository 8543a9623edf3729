"""How a command fails: the errors that end it with one line on standard error."""

from memoroids._util.messages import one_line


class UsageError(Exception):
    """A command line that cannot be run as it is; the message is the line that the user sees. Exit code 2."""


class CommandFailed(Exception):
    """A command that was started and did not succeed; the message is the line that the user sees. Exit code 1."""


def failure_message(error: Exception) -> str | None:
    """The line for an error that a run, its files or the machine may cause; None for any other, which is a bug."""
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or ''}"
    # Slow to import, and needed only here: whichever of them was raised has been imported by the command.
    import jax

    from memoroids.envs import EnvironmentFault
    from memoroids.runs.checkpoint import CheckpointError
    from memoroids.runs.progress import TrainingError

    if isinstance(error, (EnvironmentFault, CheckpointError, TrainingError)):
        return str(error)
    if isinstance(error, (MemoryError, OverflowError, jax.errors.JaxRuntimeError)):
        return f"does not fit (lower --buffer-size, --batch-size or --width): {one_line(error)}"
    return None
