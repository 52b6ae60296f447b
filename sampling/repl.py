"""The interactive prompt of both samplers: reading lines and pastes, commands, history and Ctrl-C."""

import contextlib
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from sampling.prompt_settings import HELP, PromptSettings, is_leaving
from system.errors import UserError
from system.signals import Interrupt
from system.terminal import Screen, hanging_indent, without_echo

PASTE_SECONDS = 0.03  # lines that follow each other this fast were pasted, not typed


def run_repl(screen: Screen, settings: PromptSettings, label: str, greeting: str, generate: Callable[[str, Interrupt], None]) -> None:
    """Read until Ctrl-D: run commands, and generate for every other text."""
    screen.say(greeting)
    with _open_history(label) as history:
        lines: list[str] = []  # typed or pasted, and not yet handled
        at_end = False
        while lines or not at_end:
            try:
                if not lines:
                    lines, at_end = _read_lines(f"\n{label}: ", history.marks_pastes)
            except KeyboardInterrupt:
                screen.say("\nPress Ctrl-D to leave")
                continue
            except EOFError:
                print()
                return
            if len(lines) == 1 and is_leaving(lines[0]):
                return
            history.save()
            answer = settings.run_command(lines[0]) or (settings.suggest(lines[0]) if len(lines) == 1 else None)
            if answer is not None:  # of several lines, commands at the start are run one by one, and the rest is one text
                screen.say(hanging_indent(answer, screen.console.width) if answer is HELP else answer, style="")
                lines = lines[1:]
                continue
            text, lines = "\n".join(lines), []
            if not text.strip():
                continue
            with Interrupt() as interrupt, without_echo():
                try:
                    generate(text, interrupt)
                except UserError as error:
                    screen.say(str(error), style="")


def _read_lines(label: str, marks_pastes: bool) -> tuple[list[str], bool]:
    """A line, or several that were pasted, and whether the input ended after them.

    Where the terminal marks pasted text, it arrives as one line with line breaks in it, and lines typed ahead are separate.
    Elsewhere lines that arrive together count as pasted.
    """
    lines = [input(label)]
    while not marks_pastes and select.select([sys.stdin], [], [], PASTE_SECONDS)[0]:
        try:
            lines.append(input())
        except EOFError:
            return lines, True
    return lines, False


@dataclass
class _History:
    """The history of the line editor, kept in a file."""

    readline: ModuleType | None
    path: Path
    marks_pastes: bool = False

    def save(self) -> None:
        with contextlib.suppress(OSError):  # the prompt also works where the file cannot be written
            if self.readline is not None:
                self.readline.write_history_file(self.path)


@contextlib.contextmanager
def _open_history(label: str) -> Iterator[_History]:
    """Line editing, with the history of earlier sessions."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    try:
        import readline
    except ImportError:  # some systems have no readline
        yield _History(None, state)
        return
    path = state / "backgpt" / f"{label.lower()}.history"
    readline.set_history_length(1000)
    marks_pastes = "libedit" not in (readline.__doc__ or "") and os.environ.get("TERM", "dumb") != "dumb"
    if marks_pastes:
        readline.parse_and_bind("set enable-bracketed-paste on")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            readline.read_history_file(path)
    yield _History(readline, path, marks_pastes)


def at_terminal() -> bool:
    """Whether a person types at a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def read_lines() -> Iterator[str]:
    """The non-empty lines of a pipe; invalid UTF-8 is replaced."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    for line in sys.stdin or ():  # it may be closed
        if line.strip():
            yield line.removesuffix("\n").removesuffix("\r")
