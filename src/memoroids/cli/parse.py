"""Reading a command's options with tyro, and asking for --trust before a run's own code is imported."""

import contextlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from memoroids._util.literals import read_pairs
from memoroids._util.messages import suggest
from memoroids.cli.commands import COMMANDS
from memoroids.cli.failures import UsageError

if TYPE_CHECKING:
    from memoroids.runs.settings import TrainConfig

RunDirectory = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="Directory of the run.")]
"""The option of a command that opens one run."""
Trust = Annotated[
    bool,
    tyro.conf.arg(
        help="Import and run the code that the run's settings name: a memory, an environment or an agent given as "
        "package.module:name."
    ),
]
"""The option of a command that may import what a run's settings name."""


_REGISTRY = ConstructorRegistry()


@_REGISTRY.primitive_rule
def _keyword_arguments(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Reads a dictionary of any values from pairs of a name and a literal; tyro would make strings of the values."""
    if info.type != dict[str, Any]:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME VALUE ...",
        instance_from_str=read_pairs,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda values: [word for pair in values.items() for word in (pair[0], json.dumps(pair[1]))],
    )


def parse(options: Any, command: str, arguments: list[str], default: Any = None) -> Any:
    """The options of `command`: an instance of the dataclass `options`, read from `arguments`.

    Where an option is not given, `default`, if any, has its value. `--help` prints the options and raises `SystemExit`.
    Raises `UsageError` with tyro's complaint in one line.
    """
    defaults = {} if default is None else {"default": default}

    def read(arguments: list[str]) -> Any:
        return tyro.cli(
            options,
            prog=f"memoroids {command}",
            description=COMMANDS[command].summary,
            args=arguments,
            registry=_REGISTRY,
            **defaults,
        )

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return read(arguments)
    except SystemExit as stop:
        if not stop.code:
            raise
        said = _first_box(complaint.getvalue()) or "cannot read the options"
        if unknown := re.match(r"Unrecognized options: --([\w.-]+)", said):
            near = suggest(unknown[1], _options_of(read), most=0).replace("did you mean ", "did you mean --")
            said = f"no option --{unknown[1]}{near}"
        raise UsageError(f"{command}: {said}; see memoroids {command} --help") from None


def _options_of(read: Callable[[list[str]], Any]) -> list[str]:
    """The options that are in the help of a command, without their dashes."""
    help_text = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(help_text):
        read(["--help"])
    return re.findall(r"--([A-Za-z][\w.-]*)", help_text.getvalue())


def _first_box(complaint: str) -> str:
    """The text of the first box in what tyro prints, in one line.

    Where the terminal's encoding lacks the characters of a box, lines of dashes stand above and below the text.
    """
    lines = [re.sub(r"^[│|+\s]+|[│|+\s]+$", "", line) for line in complaint.splitlines()]
    rules = [i for i, line in enumerate(lines) if re.match(r"[╭╰─-]{2}", line)] + [len(lines)] * 2
    said = " ".join(line for line in lines[rules[0] + 1 : rules[1]] if line)
    # The names of settings' types and groups mean nothing to whoever typed an option.
    said = re.sub(r"^Error parsing ([A-Za-z]\w*: )?", "", said)
    said = re.sub(r"invalid literal for int\(\) with base 10: ", "needs an integer, got ", said)
    return re.sub(r"could not convert string to float: ", "needs a number, got ", said)


def load_trusted_config(run: Path, *, trust: bool) -> "TrainConfig":
    """The settings of the run in `run`.

    Raises `UsageError` if they name code to import and `trust` is False: a run may come from somebody else, and its
    code would run with the user's rights. Raises `ValueError` if they cannot be read.
    """
    from memoroids.runs.run_directory import load_config

    config = load_config(run)
    if config.own_code and not trust:
        raise UsageError(
            f"{run} names code of its own, {' and '.join(config.own_code)}: add --trust to import it, if you know "
            "where the run comes from"
        )
    return config
