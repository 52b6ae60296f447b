"""Settings as text: all of a run's, and what differs between two runs."""

import dataclasses
import shutil
import sys
import textwrap
from typing import Any


def describe_settings(config: object, *facts: str, unused: tuple[str, ...] = ()) -> str:
    """The resolved configuration, printed before a long run starts."""
    values = _flatten(dataclasses.asdict(config))  # type: ignore[call-overload]  # of any config
    pairs = [f"{key}={value}" for key, value in values.items() if key not in unused]
    width = shutil.get_terminal_size((120, 24)).columns - 2
    lines: list[str] = []
    line = " "
    for pair in pairs:
        if line.strip() and len(line) + len(pair) > width:
            lines, line = [*lines, line], " "
        line += f" {pair}"
    told = [f"  {fact}" for fact in facts]
    if sys.stdout.isatty():
        told = [textwrap.fill(fact, width, subsequent_indent="  ", break_on_hyphens=False) for fact in told]
    return "\n".join([f"{type(config).__name__}:", *lines, line, *told])


def changed_settings(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences between two sets of settings, one text for each."""
    return [f"{name} was {was.get(name)!r}, now {now[name]!r}" for name in now if was.get(name) != now[name]]


def _flatten(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(value if isinstance(value, dict) else {key: value})
    return flat
