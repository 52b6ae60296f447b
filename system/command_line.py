"""The command line: flags generated from a dataclass, over a preset."""

import difflib
import sys
from typing import Protocol, TypeVar

import tyro

from system.errors import BAD_FLAGS, UserError


class Checked(Protocol):
    """A configuration that can tell whether its values make sense."""

    def check(self) -> None:
        """Raise a UserError for a value that is out of range."""


Config = TypeVar("Config", bound=Checked)


def read_flags(presets: dict[str, Config], description: str | None, arguments: list[str] | None = None) -> Config:
    """The configuration of a run: a preset, named by the first word or else the first of all, with the flags applied to it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = next(iter(presets))
    if arguments and not arguments[0].startswith("-"):
        name, arguments = arguments[0], arguments[1:]
    if name not in presets:
        nearest = difflib.get_close_matches(name, presets, n=1, cutoff=0.0)[0]
        raise UserError(f"no preset {name!r}. Did you mean {nearest!r}? Presets: {', '.join(presets)}", BAD_FLAGS)
    preset = presets[name]
    usage = f"{description}\nPresets, named first: {', '.join(presets)}. The defaults below are those of {name!r}."
    config = tyro.cli(type(preset), default=preset, args=arguments, description=usage)
    config.check()
    if "--input" in arguments and not getattr(config, "input", None):
        raise UserError("--input: no file named", BAD_FLAGS)
    return config
