"""The interactive prompt of both samplers: it reads lines and pastes, and hands them to the session."""

import io
import select
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from config import SamplerConfig
from formats.checkpoint import Checkpoint
from sampling.history import History, open_history
from sampling.prompt_settings import HELP, is_leaving
from sampling.session import Session, require_new, save_picture
from sampling.terminal_sampler import TerminalSampler
from system.errors import BAD_FLAGS, UserError
from system.escapes import tell
from system.keyboard import shown_typing
from system.signals import Interrupt, suspending
from system.wrapping import hanging_indent

SEPARATOR = "---"  # a line between the texts of several prompts in a pipe: each of them may have empty lines
PASTE_SECONDS = 0.03  # lines that follow each other this fast were pasted, not typed


def run_repl(session: Session, label: str, greeting: str) -> None:
    """Read until Ctrl-D: run commands, and generate for every other text."""
    screen = session.screen
    screen.say(greeting)
    with open_history(label) as history:
        lines: list[str] = []  # typed or pasted, and not yet handled
        at_end = False
        while lines or not at_end:
            try:
                if not lines:
                    lines, at_end = _read_lines(f"\n{label}: ", history)
            except KeyboardInterrupt:
                screen.say("\nPress Ctrl-D to leave")
                continue
            except EOFError:
                print()
                return
            if len(lines) == 1 and is_leaving(lines[0]):
                return
            history.save()
            if command := session.command(lines[0]):
                lines = lines[1:]
                _run(session, command)
                continue
            answer = session.settings.run_command(lines[0]) or (session.settings.suggest(lines[0]) if len(lines) == 1 else None)
            if answer is not None:  # of several lines, commands at the start are run one by one, and the rest is one text
                screen.say(hanging_indent(answer, screen.console.width) if answer is HELP else answer, style="")
                lines = lines[1:]
                continue
            text, lines = "\n".join(lines), []
            if text.strip():
                _run(session, partial(session.generate, text))


def _run(session: Session, work: Callable[[Interrupt], None]) -> None:
    with Interrupt() as interrupt:
        try:
            work(interrupt)
        except UserError as error:
            session.screen.say(str(error), style="")


def _read_lines(label: str, history: History) -> tuple[list[str], bool]:
    """A line, or several that were pasted, and whether the input ended after them.

    Where the terminal marks pasted text, it arrives as one line with line breaks in it. Elsewhere lines that arrive together
    count as pasted, but not if the first one was there before the prompt: then they were typed ahead.
    """
    is_marked = history.marks_pastes or _is_waiting(0)
    with shown_typing(), suspending(lambda: None, lambda: history.redraw(label)):
        lines = [input(label)]
        while not is_marked and _is_waiting(PASTE_SECONDS):
            try:
                lines.append(input())
            except EOFError:
                return lines, True
    return lines, False


def _is_waiting(seconds: float) -> bool:
    """Whether a line can be read within so many seconds."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


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


def talk(sampler: TerminalSampler, config: SamplerConfig, checkpoint: Checkpoint, text: str, greeting: str) -> None:
    """Generate for the given text; without one, for each line of a pipe, or at the interactive prompt."""
    prompter, is_for_people = sampler.prompter, sampler.screen.is_terminal
    if not text and at_terminal():
        if config.format == "jsonl":
            raise UserError(f"--format jsonl: give a text with --{prompter.given_field}, or lines in a pipe", BAD_FLAGS)
        run_repl(Session(sampler, config, checkpoint), prompter.given_label, greeting)
        return
    if config.picture:
        require_new("--picture", Path(config.picture))
    is_divided = not (sampler.best_first or is_for_people or config.format == "jsonl")
    for number, line in enumerate([text] if text else read_lines()):
        if number and is_divided:
            sampler.screen.show(SEPARATOR)
        shown = sampler.generate_once(line, config)
        if config.picture:
            save_picture(Path(config.picture), sampler, line, shown[0])
            tell(f"saved {config.picture}", sys.stderr)
