"""The command line: flags made from the dataclasses of config.py, and settings put into words."""

import dataclasses
import difflib
import sys
from typing import Any, TypeVar

import tyro

from config import (
    BenchmarkConfig,
    EvaluateConfig,
    FinetuneConfig,
    InstructConfig,
    PreprocessConfig,
    SampleConfig,
    SampleInstructConfig,
    TrainConfig,
)
from errors import BAD_FLAGS, UserError

Config = TypeVar(
    "Config",
    PreprocessConfig,
    TrainConfig,
    InstructConfig,
    FinetuneConfig,
    SampleConfig,
    SampleInstructConfig,
    EvaluateConfig,
    BenchmarkConfig,
)


def read_flags(presets: dict[str, Config], description: str | None, arguments: list[str] | None = None) -> Config:
    """The configuration of a run: a preset (the first word, if it is no flag) with the flags laid over it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = "xcoax"
    if arguments and not arguments[0].startswith("-"):
        name, arguments = arguments[0], arguments[1:]
    if name not in presets:
        nearest = difflib.get_close_matches(name, presets, n=1, cutoff=0.0)[0]
        raise UserError(f"no preset {name!r}. Perhaps you meant {nearest!r}; there are: {', '.join(presets)}", BAD_FLAGS)
    preset = presets[name]
    usage = f"{description}\nPresets, named first: {', '.join(presets)}. The defaults below are those of {name!r}."
    config = tyro.cli(type(preset), default=preset, args=arguments, description=usage)
    config.check()
    if "--input" in arguments and not getattr(config, "input", None):
        raise UserError("--input: nothing is named", BAD_FLAGS)
    return config


def describe(config: object, *facts: str, unused: tuple[str, ...] = ()) -> str:
    """The resolved configuration for a person to read before an hour is spent on it."""
    values = _flatten(dataclasses.asdict(config))  # type: ignore[call-overload]  # of any config
    pairs = [f"{key}={value}" for key, value in values.items() if key not in unused]
    lines: list[str] = []
    line = " "
    for pair in pairs:
        if len(line) + len(pair) > 118:
            lines, line = [*lines, line], " "
        line += f" {pair}"
    return "\n".join([f"{type(config).__name__}:", *lines, line, *(f"  {fact}" for fact in facts)])


def differences(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two sets of settings, in words."""
    return [f"{name} was {was.get(name)!r}, now {now[name]!r}" for name in now if was.get(name) != now[name]]


def _flatten(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(value if isinstance(value, dict) else {key: value})
    return flat
