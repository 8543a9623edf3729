"""The entry point of `memoroids`: finds the command, runs it, and ends a failure with one line and an exit code.

What is slow to import is imported by the command that needs it, after its options are read wherever that is possible:
`--help` and a wrong command line are answered at once.
"""

import io
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from memoroids._util.messages import suggest
from memoroids._version import __version__
from memoroids.cli.commands import COMMANDS
from memoroids.cli.failures import CommandFailed, UsageError, failure_message


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that `argv` names; by default `argv` is the process's arguments.

    Returns after success. Otherwise raises `SystemExit` with one line on standard error: code 2 for a wrong command
    line, 1 for a failure, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # the encoding of a redirected stream may lack ε
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            _print_help()
        elif arguments[0] == "--version":
            print(__version__)
        else:
            _run(arguments[0], arguments[1:])
    except UsageError as error:
        _exit(str(error), 2)
    except CommandFailed as error:
        _exit(str(error), 1)
    except KeyboardInterrupt:
        _exit("interrupted", 130)
    except BrokenPipeError:
        sys.exit(1)


def _print_help() -> None:
    print("usage: memoroids COMMAND [OPTIONS]   (memoroids COMMAND --help for its options)\n")
    for name, command in COMMANDS.items():
        print(f"  {name:13}{command.summary}")


def _run(name: str, arguments: list[str]) -> None:
    """Runs one command; raises `UsageError` or `CommandFailed` for every failure that is not a bug."""
    if name not in COMMANDS:
        raise UsageError(f"unknown command {name!r}{suggest(name, COMMANDS)}")
    command = COMMANDS[name]
    if "" not in sys.path and (not command.opens_runs or "--trust" in arguments):
        # The user may name modules in the working directory; they come last, so that they hide no installed ones.
        sys.path.append("")
    try:
        getattr(import_module(command.module), command.function)(arguments)
    except (UsageError, CommandFailed):
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
    except Exception as error:
        message = failure_message(error)
        if message is None:
            raise
        raise CommandFailed(message) from error


def _exit(message: str, code: int) -> NoReturn:
    print(f"memoroids: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
