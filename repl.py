"""The interactive prompt that both samplers share: settings, commands, history, and what Ctrl-C means."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType

from config import WriteConfig
from engine import Sampling
from errors import UserError
from screen import Screen, hang

PASTE_SECONDS = 0.03  # lines that come together so fast were pasted, not typed
NAMES = {  # what is typed, and the field of the configuration that it sets
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "tokens": "max_new_tokens",
    "samples": "num_samples",
    "seed": "seed",
}
WORDS = ("help", "raw", "settings", "quit", "exit")
HELP = """  temp=0.8      above 1 bolder, below 1 more careful, 0 always the likeliest token
  top_k=200     choose among so many of the likeliest tokens; 0 is off
  top_p=0.95    choose among the likeliest tokens that together have this probability; 1 is off
  min_p=0.05    choose among tokens with at least this share of the likeliest one's probability; 0 is off
  tokens=500    tokens at most in a text
  samples=3     texts for each prompt
  seed=7        the same seed writes the same; seed=off writes another text each time
  raw           switch between the order of a reader and the model's own
  settings      what is set
  help          this
  quit          leave, as Ctrl-D does
  Ctrl-C stops a text that is being written. A line that begins with a space is never a command."""


@dataclass
class Interrupt:
    """Whether Ctrl-C was pressed while this context is open."""

    pressed: bool = False

    def __enter__(self) -> "Interrupt":
        self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)


class Settings:
    """What can be changed at the prompt."""

    def __init__(self, config: WriteConfig) -> None:
        self.config = config

    def obey(self, line: str) -> str | None:
        """What to answer to a command; None for a line that is none."""
        if line.startswith(" "):
            return None
        word = line.strip().lower()
        if word in ("help", "?"):
            return HELP
        if word == "settings":
            return self.describe()
        if word == "raw":
            self.config = dataclasses.replace(self.config, raw=not self.config.raw)
            return "the model's own order" if self.config.raw else "the order of a reader"
        if word in ("raw=on", "raw=off"):
            self.config = dataclasses.replace(self.config, raw=word == "raw=on")
            return word
        assignment = re.fullmatch(r"([\w-]+)\s*=\s*(\S*)", word) or re.fullmatch(rf"({'|'.join(NAMES)})\s+([\d.]+|off)", word)
        return self._set(assignment[1], assignment[2]) if assignment and assignment[1] in NAMES else None

    @staticmethod
    def doubt(line: str) -> str | None:
        """What to ask about a line alone that is nearly a command."""
        if line.startswith(" ") or "\n" in line:
            return None
        name, is_assignment, _ = line.strip().lower().replace("-", "_").partition("=")
        if not is_assignment:
            near = difflib.get_close_matches(name, WORDS, n=1, cutoff=0.8)
            return f"perhaps {near[0]}? As a text to write of, begin it with a space" if near else None
        near = difflib.get_close_matches(name.strip(), [*NAMES, *NAMES.values()], n=1, cutoff=0.75)
        short = {field: short for short, field in NAMES.items()}
        return f"there is no {name.strip()}; perhaps {short.get(near[0], near[0])}? `help` shows all" if near else None

    def _set(self, name: str, value: str) -> str:
        field = NAMES[name]
        try:
            changed: float | int | None
            if name == "seed" and value in ("off", "none"):
                changed = None
            elif name in ("temp", "top_p", "min_p"):
                changed = float(value)
            else:
                changed = int(value)
            config = dataclasses.replace(self.config, **{field: changed})  # type: ignore[arg-type]  # by name
            config.check()
        except ValueError:
            return (
                f"{name}={value}: {'a number' if name in ('temp', 'top_p', 'min_p') else 'a whole number'} is expected; nothing is changed"
            )
        except UserError as error:
            return f"{str(error).replace('--' + field.replace('_', '-') + ' ', name + '=')}; nothing is changed"
        self.config = config
        return f"{name}={'off' if changed is None else changed}"

    def describe(self) -> str:
        """What is set, as it would be typed."""
        values = {name: getattr(self.config, field) for name, field in NAMES.items()}
        return (
            "  ".join(f"{name}={'off' if value is None else value}" for name, value in values.items())
            + f"  raw is {'on' if self.config.raw else 'off'}"
        )


def sampling_of(config: WriteConfig) -> Sampling:
    """The same for the engine; without a seed, one that nobody had before."""
    seed = int.from_bytes(os.urandom(8), "big") >> 1 if config.seed is None else config.seed
    return Sampling(config.max_new_tokens, config.temperature, config.top_k, config.top_p, config.min_p, seed)


def converse(screen: Screen, settings: Settings, label: str, greeting: str, turn: Callable[[str, Interrupt], None]) -> None:
    """Read lines until Ctrl-D; each that is no command is a turn."""
    screen.say(greeting)
    with _history(label) as editor:
        lines: list[str] = []  # typed or pasted, and not yet dealt with
        at_end = False
        while lines or not at_end:
            try:
                if not lines:
                    lines, at_end = _read(f"\n{label}> ")
            except KeyboardInterrupt:
                screen.say("\nCtrl-D leaves")
                continue
            except EOFError:
                print()
                return
            if len(lines) == 1 and lines[0].strip().lower() in ("quit", "exit") and not lines[0].startswith(" "):
                return
            editor.save()
            answer = settings.obey(lines[0]) or (settings.doubt(lines[0]) if len(lines) == 1 else None)
            if answer is not None:  # of lines typed ahead those that are commands come first, and the rest is a text
                screen.say(hang(answer, screen.console.width) if answer is HELP else answer, style="")
                lines = lines[1:]
                continue
            line, lines = "\n".join(lines), []
            if not line.strip():
                continue
            with Interrupt() as interrupt:
                try:
                    turn(line, interrupt)
                except UserError as error:
                    screen.say(str(error), style="")


def _read(label: str) -> tuple[list[str], bool]:
    """A line, or those that came together, and whether they were the last; what a terminal marks as pasted is one line of several."""
    lines = [input(label)]
    while select.select([sys.stdin], [], [], PASTE_SECONDS)[0]:
        try:
            lines.append(input())
        except EOFError:
            return lines, True
    return lines, False


@dataclass
class _Editor:
    """The line editor's history, kept in a file."""

    readline: ModuleType | None
    path: Path

    def save(self) -> None:
        with contextlib.suppress(OSError):  # a home that cannot be written is no reason to stop
            if self.readline is not None:
                self.readline.write_history_file(self.path)


@contextlib.contextmanager
def _history(name: str) -> Iterator[_Editor]:
    """Line editing, with what was typed in earlier sessions."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    try:
        import readline
    except ImportError:  # not on every system
        yield _Editor(None, state)
        return
    path = state / "backgpt" / f"{name}.history"
    readline.set_history_length(1000)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            readline.read_history_file(path)
    yield _Editor(readline, path)


def at_terminal() -> bool:
    """Whether a person types the input."""
    return sys.stdin is not None and sys.stdin.isatty()


def read_lines() -> Iterator[str]:
    """The lines of a pipe that hold something; bytes that are no text become marks."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    for line in sys.stdin or ():  # it may be closed
        if line.strip():
            yield line.removesuffix("\n").removesuffix("\r")
