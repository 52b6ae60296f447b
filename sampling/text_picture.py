"""A picture of a text, each written word colored by its surprise: an SVG file without anything from the network."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

from sampling.surprise import Word
from system.escapes import escape_controls
from system.files import atomic_write
from system.wrapping import spans_from_end, spans_from_start

COLUMNS = 80
GIVEN = "#9a9a9a"
COLORS = ((1.0, "#333333"), (3.0, "#1f5fa8"), (6.0, "#1a8a5a"), (10.0, "#d98200"), (float("inf"), "#c8102e"))  # up to so many bits
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace("Fira Code", "ui-monospace, Menlo, Consolas")


def draw_text(path: Path, words: Sequence[Word], title: str, grows_left: bool) -> None:
    """Write the picture of a text in the lines that it has in a terminal, with a legend."""
    text = Text()
    for word in words:
        text.append(escape_controls(word.text), None if not word.text.strip() else GIVEN if word.bits is None else _color(word.bits))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False, force_terminal=True, color_system="truecolor")
    for start, end in (spans_from_end if grows_left else spans_from_start)(text.plain, COLUMNS - 1):
        console.print(text[start:end] if start < end else Text(), no_wrap=True, overflow="ignore", crop=False)
    console.print()
    console.print(_legend())
    picture = console.export_svg(title=escape_controls(title), theme=DEFAULT_TERMINAL_THEME, code_format=FORMAT, unique_id="text")
    with atomic_write(path) as file:
        file.write(picture.encode("utf-8", "replace"))


def _color(bits: float) -> str:
    return next(color for limit, color in COLORS if bits <= limit)


def _legend() -> Text:
    """What the colors say."""
    legend = Text("given", GIVEN)
    lowest = 0.0
    for limit, color in COLORS:
        span = f"{lowest:g} to {limit:g}" if limit < float("inf") else f"over {lowest:g}"
        legend.append(f"   {span}", color)
        lowest = limit
    return legend + Text(" bits of surprise", COLORS[0][1])
