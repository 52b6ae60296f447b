"""Standard output for people: text on a terminal."""

import io
import sys

from rich.console import Console
from rich.text import Text

from system.escapes import escape_controls, tell
from system.live_text import LiveText
from system.passages import Passage


def tell_at_once(text: str) -> None:
    """Say at a terminal what takes a moment, before the libraries are imported that take one."""
    if sys.stdout is not None and sys.stdout.isatty():
        tell(text)


class Screen:
    """Standard output. A capable terminal shows texts while they grow; other outputs get them when they are complete.

    If it is `plain`, so does a terminal.
    """

    def __init__(self, plain: bool = False) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 gets replacement characters
        self.console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False, force_terminal=False if plain else None)
        self.is_terminal = self.console.is_terminal and sys.stdout.isatty()  # FORCE_COLOR lets the console take a pipe for one
        self.is_live = self.is_terminal and not self.console.is_dumb_terminal

    def say(self, text: str, style: str = "dim") -> None:
        """Print a message about the texts."""
        self.console.print(Text(escape_controls(text), style=style))

    def show(self, text: str) -> None:
        """Print a complete text. A file or a pipe gets it unchanged, since only a terminal acts on control characters."""
        if self.is_terminal:
            self.console.print(Text(escape_controls(text)))
        else:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def show_passage(self, passage: Passage, first: str = "") -> None:
        """Print a complete passage, in a terminal with the lines that it had while it grew; they hang under what stands first."""
        if not self.is_terminal:
            self.show(first + passage.text)
            return
        hanging = " " * len(first.expandtabs())
        for number, line in enumerate(passage.lines(self.console.width - 1 - len(hanging))):
            self.console.print(Text(hanging if number else first.expandtabs()) + line, no_wrap=True, overflow="ignore", crop=False)

    def clear(self) -> None:
        """Clear the screen of a terminal."""
        self.console.clear()

    def live_text(self) -> LiveText:
        """A place for growing texts."""
        return LiveText(self.console, self.is_live)
