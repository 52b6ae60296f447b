"""Text on a terminal: made harmless, and shown while it grows."""

import io
import re
import sys
import textwrap
import time
import unicodedata
from collections.abc import Sequence
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text

REFRESH_SECONDS = 0.05


def harmless(text: str) -> str:
    """Text that cannot drive a terminal: control characters, and those that turn the direction of writing, are shown and not sent."""
    return "".join(map(_shown, text)) if not text.isascii() or not text.isprintable() else text


def _shown(character: str) -> str:
    code = ord(character)
    if character == "\n":
        return character
    if character == "\t":
        return "    "
    if code < 0x20:
        return chr(0x2400 + code)  # the picture of the control character
    if code == 0x7F:
        return "\u2421"
    turns = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069 or code in (0x200E, 0x200F, 0x061C)
    if turns or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return f"\\u{code:04x}"
    return character


def wrap_from_end(text: str, width: int) -> list[str]:
    """Lines that fill up from the end of the text, so that those that stand stay as they are while it grows at its beginning."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        parts: list[str] = []
        line = ""
        for word in reversed(paragraph.split(" ")):
            joined = f"{word} {line}" if line or parts else word
            if line and cell_len(joined) > width:
                parts.append(line)
                joined = word
            while cell_len(joined) > width:  # a word longer than a line
                cut = _last_fitting(joined, width)
                parts.append(joined[cut:])
                joined = joined[:cut]
            line = joined
        lines += [line, *reversed(parts)]
    return lines


def hang(text: str, width: int) -> str:
    """Lines of a name and what it means; what does not fit goes on below where its meaning begins."""
    lines: list[str] = []
    for line in text.split("\n"):
        column = min(len(line) - len(re.sub(r"^\s*(\S+\s{2,})?", "", line)), width // 2)
        lines += textwrap.wrap(line, max(width, 2), subsequent_indent=" " * column) or [""]
    return "\n".join(lines)


def _last_fitting(text: str, width: int) -> int:
    """Where the longest end of the text begins that is not wider."""
    place, used = len(text), 0
    while place and used + cell_len(text[place - 1]) <= max(width, 2):
        place -= 1
        used += cell_len(text[place])
    return place


class Screen:
    """Where texts appear. On a terminal that can, they are seen growing; elsewhere they come whole."""

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal that is not of UTF-8 gets marks for what it lacks
        self.console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal

    def say(self, text: str, style: str = "dim") -> None:
        """A line beside the texts."""
        self.console.print(Text(harmless(text), style=style))

    def show(self, text: str) -> None:
        """A whole text. To a file or a pipe it goes as it is: nobody's terminal is driven there."""
        if self.console.is_terminal:
            self.console.print(Text(harmless(text)))
        else:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def growing(self, at_the_beginning: bool) -> "Growing":
        return Growing(self, at_the_beginning)


class Growing:
    """Texts that are being written, one under the other; they vanish at the end, to be shown whole."""

    def __init__(self, screen: Screen, at_the_beginning: bool) -> None:
        self._screen = screen
        self._at_the_beginning = at_the_beginning
        self._live = Live(console=screen.console, auto_refresh=False, transient=True) if screen.is_live else None
        self._last = 0.0

    @property
    def is_due(self) -> bool:
        """Whether to draw again: as often as an eye can follow."""
        return self._live is not None and time.monotonic() - self._last >= REFRESH_SECONDS

    def draw(self, texts: Sequence[str]) -> None:
        """Show how far they are."""
        if self._live:
            self._live.update(self._picture(texts), refresh=True)
            self._last = time.monotonic()

    def _picture(self, texts: Sequence[str]) -> Text:
        size = self._screen.console.size
        width, height = max(size.width - 1, 2), max(size.height - 2, 1)
        lines: list[str] = []
        for text in texts:
            # A character of several bytes may be half there.
            wrapped = wrap_from_end(harmless(text.strip("\ufffd")), width)
            if self._at_the_beginning:
                wrapped[0] = wrapped[0].rjust(width - cell_len(wrapped[0]) + len(wrapped[0]))  # it grows to the left
            lines += ([""] if lines else []) + wrapped
        if len(lines) > height:
            lines = [*lines[: height - 1], "..."] if self._at_the_beginning else ["...", *lines[len(lines) - height + 1 :]]
        return Text("\n".join(lines), no_wrap=True, overflow="crop")

    def __enter__(self) -> "Growing":
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.update(Text(""), refresh=True)
            self._live.__exit__(kind, error, trace)
