"""Typing is hidden between prompts and shown at them, and the terminal is as it was when it belongs to another program."""

import contextlib
import io
import os
import pty
import signal
import termios
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from system.keyboard import hidden_typing, shown_typing
from system.signals import suspending


@pytest.fixture
def terminal_input(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The descriptor of a pseudo-terminal that is standard input and output."""
    keyboard, terminal = pty.openpty()
    with os.fdopen(terminal, encoding="utf-8") as stdin, os.fdopen(os.dup(terminal), "w", encoding="utf-8") as stdout:
        # not in sys itself, where pytest would put its own output back before the test
        monkeypatch.setattr("system.keyboard.sys", SimpleNamespace(stdin=stdin, stdout=stdout))
        yield terminal
    os.close(keyboard)


def echoes(terminal: int) -> bool:
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_typed_text_is_shown_only_at_a_prompt(terminal_input: int, error: type[BaseException] | None) -> None:
    before = termios.tcgetattr(terminal_input)
    assert echoes(terminal_input)
    with contextlib.suppress(KeyboardInterrupt), hidden_typing():
        assert not echoes(terminal_input)
        with shown_typing():
            assert echoes(terminal_input)
        assert not echoes(terminal_input)
        if error:
            raise error
    assert termios.tcgetattr(terminal_input) == before


def test_ctrl_z_gives_the_terminal_back_as_it_was_and_takes_it_again(terminal_input: int, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[object] = []

    def stop(number: int) -> None:
        events.append((number, signal.getsignal(number), termios.tcgetattr(terminal_input) == before))

    before = termios.tcgetattr(terminal_input)
    monkeypatch.setattr(signal, "raise_signal", stop)
    for inner in (hidden_typing(), contextlib.nullcontext()):
        with hidden_typing(), inner, suspending(lambda: events.append("leave"), lambda: events.append(echoes(terminal_input))):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTSTP)
    assert events == ["leave", (signal.SIGTSTP, signal.SIG_DFL, True), False] * 4
    assert signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL


def test_ctrl_z_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        with suspending(pytest.fail, pytest.fail):
            assert signal.getsignal(signal.SIGTSTP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTSTP, before)


def test_a_pager_that_reads_the_output_has_the_terminal_to_itself(terminal_input: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("system.keyboard.sys.stdout", io.StringIO())
    of_the_pager = termios.tcgetattr(terminal_input)
    of_the_pager[3] &= ~termios.ECHO
    with hidden_typing():
        assert echoes(terminal_input)
        termios.tcsetattr(terminal_input, termios.TCSANOW, of_the_pager)
        with shown_typing():
            assert not echoes(terminal_input)
    assert termios.tcgetattr(terminal_input) == of_the_pager


@pytest.mark.usefixtures("terminal_input")
def test_without_a_terminal_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin in (None, io.StringIO()):
        monkeypatch.setattr("system.keyboard.sys.stdin", stdin)
        with hidden_typing(), shown_typing():
            assert signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL
