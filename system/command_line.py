"""The command line: flags generated from a dataclass, over a preset."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Set
from functools import partial
from itertools import dropwhile
from pathlib import Path
from typing import Any, Protocol, TypeVar

import tyro

from system.errors import BAD_FLAGS, UserError


class Checked(Protocol):
    """A configuration that can tell whether its values make sense."""

    def check(self) -> None:
        """Raise a UserError for a value that is out of range."""


# The names of data sets in commands of earlier versions of the published project.
EARLIER_NAMES = {"tiny": "tinystories"}

Config = TypeVar("Config", bound=Checked)


# Makes a preset like a folder, given the names of the settings that the command line gives.
Imitate = Callable[[Config, Path, Set[str]], Config]


def read_flags(
    presets: dict[str, Config], description: str | None, arguments: list[str] | None = None, imitate: Imitate[Config] | None = None
) -> Config:
    """The configuration of a run: a preset, named by the first word or else the first of all, with the flags applied to it.

    Where the script uses a checkpoint, the first word may also be its path. `imitate` answers to --like.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    # These are looked at below, in whichever form they are written.
    looked_at = ("--dataset=", "--input=", "--like=")
    arguments = [part for each in arguments for part in (each.split("=", 1) if each.startswith(looked_at) else [each])]
    name = next(iter(presets))
    if arguments and not arguments[0].startswith("-"):
        word, arguments = arguments[0], arguments[1:]
        if word in presets:
            name = word
        elif hasattr(presets[name], "model_path") and (word.endswith(".pt") or "/" in word or Path(word).exists()):
            arguments = ["--model-path", word, *arguments]
        else:
            raise _no_preset(presets, word, arguments)
    preset = presets[name]
    if imitate and (folder := _value("--like", arguments)) and not {"-h", "--help"} & set(arguments):
        preset = imitate(preset, Path(folder), given_flags(arguments))
    if "--dataset" in arguments:
        preset = _with_dataset(presets, preset, arguments)
    usage = f"{description}\nPresets, named first: {', '.join(presets)}. The defaults below are those of {name!r}."
    parse = partial(tyro.cli, type(preset), default=preset, args=arguments, description=usage)
    output = io.StringIO()
    try:
        with _unwrapped(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            config: Config = parse()
    except SystemExit as end:
        if end.code:
            raise UserError(_refusal(output.getvalue()), BAD_FLAGS) from end
        parse()  # --help, for the terminal as it is
        raise
    config.check()
    if "--input" in arguments and not getattr(config, "input", None):
        raise UserError("--input: no file named", BAD_FLAGS)
    return config


@contextlib.contextmanager
def _unwrapped() -> Iterator[None]:
    """In this context the library's boxes are as wide as what they hold, so that a long value stays whole."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "1000000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _refusal(box: str) -> str:
    """The library's refusal in one line: the text at the top of its box, and the flags that were perhaps meant, without their help."""
    lines = [line.strip("|│ ") for line in box.splitlines()[1:-1]]
    said, *_ = (part.strip() for part in " ".join("\n" if set(line) in ({"-"}, {"─"}) else line for line in lines).strip().split("\n"))
    if match := re.match(r"Error parsing (\S+): .*(float|int\(\)).*: '(.*)'", said):
        flag, kind, value = match.groups()
        if kind != "float":
            return f"{flag} {value}: a whole number"
        return f"{flag} {value}: a number" + (f", such as {value.replace(',', '.')}" if re.fullmatch(r"-?\d*,\d+", value) else "")
    suggested = dropwhile(lambda line: not line.startswith("Perhaps you meant"), lines)
    flags = " or ".join(line for line in suggested if re.match("--[a-z]", line))
    meant = f". Perhaps you meant: {flags}" if flags else ""
    return f"{said.rstrip('.')}{meant}. --help lists all flags"


def given_flags(arguments: list[str] | None = None) -> set[str]:
    """The names of the settings that the command line gives, as fields of a configuration."""
    arguments = sys.argv[1:] if arguments is None else arguments
    names = (each.removeprefix("--").partition("=")[0].replace("-", "_") for each in arguments if each.startswith("--"))
    return {given for name in names for given in (name, name.removeprefix("no_"))}


def _value(flag: str, arguments: list[str]) -> str:
    """What follows a flag; empty without the flag, or if it is the last word."""
    return next(iter(arguments[arguments.index(flag) + 1 :]), "") if flag in arguments else ""


def _with_dataset(presets: dict[str, Config], preset: Config, arguments: list[str]) -> Config:
    """The preset without its own files and without the configuration of its own data set, which another one does not have."""
    if not hasattr(preset, "dataset"):
        raise _no_preset(presets, "--dataset", arguments)
    if "--input" in arguments:
        raise UserError("--input and --dataset: use only one of them", BAD_FLAGS)
    named = _value("--dataset", arguments)
    changes: dict[str, Any] = {"input": ()} if named == preset.dataset else {"input": (), "subset": ""}
    return dataclasses.replace(preset, **changes)  # type: ignore[type-var]  # every configuration is a dataclass


def _no_preset(presets: dict[str, Config], word: str, arguments: list[str]) -> UserError:
    """The error for a wrong first word, with the command that was probably meant."""
    default, preset = next(iter(presets.items()))
    script = f"python {Path(sys.argv[0]).name}"
    what = "there is no --dataset here; a preset as the first word names the data" if word == "--dataset" else f"no preset {word!r}"
    wanted = _value("--dataset", arguments) or word
    nearest = EARLIER_NAMES.get(wanted) or next(iter(difflib.get_close_matches(wanted, presets, n=1)), None)
    path_flag = next((flag for flag in ("input", "data_dir") if hasattr(preset, flag)), None)
    text_flag = next((flag for flag in ("prompt", "response") if hasattr(preset, flag)), None)
    meant = ""
    if text_flag and " " in word:
        meant = f" Did you mean: {script} --{text_flag} {word!r}?"
    elif nearest:
        meant = f" Did you mean: {script}{'' if nearest == default else f' {nearest}'}?"
    elif path_flag and Path(word).exists():
        meant = f" Did you mean: {script} --{path_flag.replace('_', '-')} {word}?"
    return UserError(f"{what}.{meant} Presets: {', '.join(presets)}", BAD_FLAGS)
