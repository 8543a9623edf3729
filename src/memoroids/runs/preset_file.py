"""Presets of the user's own: a file with settings, on top of one of ours."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from memoroids._util.files import atomic_write_text
from memoroids._util.toml_tables import read_toml, to_toml, with_dots
from memoroids.runs.settings import PREFIXED

SUFFIX = ".toml"
WHAT = ("env", "memory", "algorithm")
"""Settings on which ours depend; those of a file are used unless others are given."""


class PresetFile(NamedTuple):
    """The settings in a file, by the names of command-line options, and the preset from which all others come."""

    base: str
    settings: dict[str, Any]

    @property
    def what(self) -> dict[str, str]:
        """The environment, memory and algorithm that it names."""
        return {name: self.settings[name] for name in WHAT if name in self.settings}


def is_file(preset: str) -> bool:
    """Whether the name of a preset is that of a file."""
    return preset.endswith(SUFFIX)


def read_preset(path: Path) -> PresetFile:
    """Reads a preset file. Raises `ValueError`, naming it, if it is not one. Settings are checked when used."""

    def make(values: dict[str, Any]) -> PresetFile:
        base = values.get("preset", "tuned")
        if is_file(base):
            raise ValueError(f"preset must be one of ours, got the file {base!r}")
        settings = with_dots(values.get("settings", {}), PREFIXED)
        if refused := [name for name in ("seed", "seeds", "run_dir", "preset") if name in settings]:
            raise ValueError(f"[settings] sets {refused[0]}, which is no part of a preset")
        if wrong := [name for name in WHAT if not isinstance(settings.get(name, ""), str)]:
            raise ValueError(f"{wrong[0]} must be text, got {settings[wrong[0]]!r}")
        return PresetFile(base, settings)

    return read_toml(path, {"preset": str, "settings": dict}, make)


def write_preset(path: Path, found: PresetFile, comments: Iterable[str]) -> None:
    """Writes a preset file, atomically, with comments at its top."""
    lines = [*(f"# {comment}" for comment in comments), f"preset = {to_toml(found.base)}", "", "[settings]"]
    lines += [f"{name} = {to_toml(value)}" for name, value in found.settings.items()]
    atomic_write_text(path, "\n".join(lines) + "\n")
