"""The history of what was typed, kept in a file from session to session; a pasted text of several lines is one entry."""

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from system.escapes import escape_controls
from system.files import atomic_write

MAX_ENTRIES = 1000


@dataclass
class History:
    """The history of the line editor, and its file."""

    readline: ModuleType | None
    path: Path
    marks_pastes: bool = False  # whether a pasted text arrives as one line with line breaks in it

    def save(self) -> None:
        """Write the file: each entry as a JSON string, which holds its line breaks."""
        if self.readline is None:
            return
        count = self.readline.get_current_history_length()
        entries = [self.readline.get_history_item(number) or "" for number in range(max(1, count - MAX_ENTRIES + 1), count + 1)]
        with contextlib.suppress(OSError), atomic_write(self.path) as file:  # the prompt also works where the file cannot be written
            file.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())

    def load(self) -> None:
        """Read the file. A line that is no JSON string was written by an earlier version, and is an entry as it stands."""
        if self.readline is None or not self.path.is_file():
            return
        with contextlib.suppress(OSError):
            for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
                if line:
                    self.readline.add_history(_entry(line))

    def redraw(self, label: str) -> None:
        """Show a waiting prompt again, with what was typed, below what another program has written."""
        try:
            ctypes.CDLL(getattr(self.readline, "__file__", None)).rl_forced_update_display()  # Python's module lacks this one
        except (AttributeError, OSError):  # no readline, or one without it
            sys.stdout.write(escape_controls(label))
            sys.stdout.flush()


@contextlib.contextmanager
def open_history(label: str) -> Iterator[History]:
    """Line editing, with the history of earlier sessions."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    try:
        import readline
    except ImportError:  # some systems have no readline
        yield History(None, state)
        return
    marks_pastes = "libedit" not in (readline.__doc__ or "") and os.environ.get("TERM", "dumb") != "dumb"
    if marks_pastes:
        readline.parse_and_bind("set enable-bracketed-paste on")
    history = History(readline, state / "backgpt" / f"{label.lower()}.history", marks_pastes)
    with contextlib.suppress(OSError):
        history.path.parent.mkdir(parents=True, exist_ok=True)
    history.load()
    yield history


def _entry(line: str) -> str:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return line
    return entry if isinstance(entry, str) else line
