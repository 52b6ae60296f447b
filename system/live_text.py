"""Growing texts on the terminal's alternate screen: lines that stand never move, and nothing of it stays on the normal one."""

import os
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.text import Text

from system.passages import Passage, flush_right
from system.signals import suspending

REFRESH_SECONDS = 0.05
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the alternate screen, without a cursor
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"  # a terminal that knows it shows what is between them at once; others ignore it
CLEAR_SCREEN, CLEAR_LINE = "\x1b[1;1H\x1b[J", "\x1b[K"


class LiveText:
    """Growing texts, one below the other; a context manager. The caller shows them complete afterwards."""

    def __init__(self, console: Console, is_live: bool) -> None:
        self._console = console
        self._is_live = is_live
        self._last = 0.0
        self._size = (0, 0)
        self._ctrl_z = suspending(self._leave, self._come_back)
        self._left_at = 0.0
        self.suspended = 0.0  # seconds in which Ctrl-Z had stopped the process

    @property
    def is_due(self) -> bool:
        """Whether it is time to draw again."""
        return self._is_live and time.monotonic() - self._last >= REFRESH_SECONDS

    def draw(self, passages: Sequence[Passage]) -> None:
        """Show the texts as far as they are written."""
        if not self._is_live or not passages:
            return
        width, height = self._console.size
        cleared = "" if (width, height) == self._size else CLEAR_SCREEN
        self._size = width, height
        rows = [f"\x1b[{row};1H{self._painted(line)}{CLEAR_LINE}" for row, line in enumerate(frame(passages, width, height), start=1)]
        self._write(BEGIN + cleared + "".join(rows) + END)
        self._last = time.monotonic()

    def __enter__(self) -> "LiveText":
        if self._is_live:
            self._write(ENTER)
        self._ctrl_z.__enter__()  # only while its screen is shown: to leave the normal one would clear it
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ctrl_z.__exit__(None, None, None)
        if self._is_live:
            self._write(CLEAR_SCREEN + LEAVE)  # tmux may take lines of a window that has shrunk for some of the normal screen

    def _leave(self) -> None:
        """Give the normal screen back, not through the file: a signal may have come while it was being written to."""
        if self._is_live:
            os.write(self._console.file.fileno(), (END + CLEAR_SCREEN + LEAVE).encode())
        self._left_at = time.monotonic()

    def _come_back(self) -> None:
        if self._is_live:
            os.write(self._console.file.fileno(), ENTER.encode())
        self._size = (0, 0)  # everything is drawn again
        self.suspended += time.monotonic() - self._left_at

    def _painted(self, line: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(line, end="", no_wrap=True, overflow="ignore", crop=False)
        return captured.get()

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()


def frame(passages: Sequence[Passage], width: int, height: int) -> list[Text]:
    """The rows of a screen, which the texts share: each has its place, so that one which grows does not move another."""
    share, rest = divmod(height, len(passages))
    rows: list[Text] = []
    for number, passage in enumerate(passages):
        room = share + (number >= len(passages) - rest)
        gap = 1 if number and room > 1 else 0
        rows += [Text()] * gap + _place(passage, max(width - 1, 2), room - gap)
    return rows


def _place(passage: Passage, width: int, room: int) -> list[Text]:
    """A text in so many rows. One that grows to the left stands at the bottom, another at the top until it must be moved up."""
    if not room:
        return []
    lines = passage.lines(width)
    if passage.grows_left:
        lines[0] = flush_right(lines[0], width)
    if len(lines) > room:
        # What was written last stays in sight; the row that stands for the rest is where the eye expects it.
        dots = [Text("...")] if room > 1 else []
        kept = room - len(dots)
        lines = [*lines[:kept], *dots] if passage.grows_left else [*dots, *lines[len(lines) - kept :]]
        return lines[:room] if passage.grows_left else lines[-room:]
    empty = [Text()] * (room - len(lines))
    return [*empty, *lines] if passage.grows_left else [*lines, *empty]
