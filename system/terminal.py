"""Text on a terminal: lines wrapped, growing texts redrawn, typing hidden while they grow."""

import contextlib
import io
import re
import sys
import termios
import textwrap
import time
from collections.abc import Iterator, Sequence
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text

from system.escapes import escape_controls

REFRESH_SECONDS = 0.05


def wrap_from_end(text: str, width: int) -> list[str]:
    """Wrap text from its end, so that finished lines do not change while text is added at the beginning."""
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
                cut = _start_of_fitting_end(joined, width)
                parts.append(joined[cut:])
                joined = joined[:cut]
            line = joined
        lines += [line, *reversed(parts)]
    return lines


def hanging_indent(text: str, width: int) -> str:
    """Wrap lines of a name and its description; further lines are indented to where the description starts."""
    lines: list[str] = []
    for line in text.split("\n"):
        column = min(len(line) - len(re.sub(r"^\s*(\S+\s{2,})?", "", line)), width // 2)
        lines += textwrap.wrap(line, max(width, 2), subsequent_indent=" " * column) or [""]
    return "\n".join(lines)


def _start_of_fitting_end(text: str, width: int) -> int:
    """The index from which the rest of the text fits into the width."""
    start, used = len(text), 0
    while start and used + cell_len(text[start - 1]) <= max(width, 2):
        start -= 1
        used += cell_len(text[start])
    return start


@contextlib.contextmanager
def without_echo() -> Iterator[None]:
    """In this context typed text is not shown, which would break the screen; it is kept for the next prompt."""
    try:
        before = termios.tcgetattr(sys.stdin)
    except (OSError, ValueError, termios.error):  # not a terminal
        yield
        return
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


class Screen:
    """Standard output. A capable terminal shows texts while they grow; other outputs get them when they are complete.

    If it is `plain`, so does a terminal.
    """

    def __init__(self, plain: bool = False) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 gets replacement characters
        self.console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False, force_terminal=False if plain else None)
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal

    def say(self, text: str, style: str = "dim") -> None:
        """Print a message about the texts."""
        self.console.print(Text(escape_controls(text), style=style))

    def show(self, text: str) -> None:
        """Print a complete text. A file or a pipe gets it unchanged, since only a terminal acts on control characters."""
        if self.console.is_terminal:
            self.console.print(Text(escape_controls(text)))
        else:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def live_text(self, grows_left: bool) -> "LiveText":
        """An area for growing texts; `grows_left` if new words appear at their beginning."""
        return LiveText(self, grows_left)


class LiveText:
    """Growing texts, one below the other. They disappear at the end, and the caller shows them complete."""

    def __init__(self, screen: Screen, grows_left: bool) -> None:
        self._screen = screen
        self._grows_left = grows_left
        self._live = Live(console=screen.console, auto_refresh=False, transient=True) if screen.is_live else None
        self._last = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time to draw again."""
        return self._live is not None and time.monotonic() - self._last >= REFRESH_SECONDS

    def draw(self, texts: Sequence[str]) -> None:
        """Show the texts as far as they are generated."""
        if self._live:
            self._live.update(self._picture(texts), refresh=True)
            self._last = time.monotonic()

    def _picture(self, texts: Sequence[str]) -> Text:
        size = self._screen.console.size
        width, height = max(size.width - 1, 2), max(size.height - 2, 1)
        lines: list[str] = []
        for text in texts:
            # The bytes of a character may be incomplete.
            wrapped = wrap_from_end(escape_controls(text.strip("\ufffd")), width)
            if self._grows_left:
                wrapped[0] = wrapped[0].rjust(width - cell_len(wrapped[0]) + len(wrapped[0]))
            lines += ([""] if lines else []) + wrapped
        if len(lines) > height:
            lines = [*lines[: height - 1], "..."] if self._grows_left else ["...", *lines[len(lines) - height + 1 :]]
        return Text("\n".join(lines), no_wrap=True, overflow="crop")

    def __enter__(self) -> "LiveText":
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.update(Text(""), refresh=True)
            self._live.__exit__(kind, error, trace)
