"""The keyboard of a terminal: what is typed is hidden and kept for the next prompt, and shown while that waits."""

import contextlib
import os
import sys
import termios
from collections.abc import Iterator
from typing import Any

from system.signals import ending_orderly, suspending

Modes = list[Any]  # of a terminal, as termios has them
LOCAL_FLAGS = 3  # their place in the modes


@contextlib.contextmanager
def hidden_typing() -> Iterator[None]:
    """In this context typed text is not shown, which would break the screen; it is kept for the next prompt.

    Ctrl-Z and SIGTERM give the terminal back as it was.
    """
    with _echoing(False), ending_orderly():
        yield


@contextlib.contextmanager
def shown_typing() -> Iterator[None]:
    """In this context, inside the other one, typed text is shown."""
    with _echoing(True):
        yield


@contextlib.contextmanager
def _echoing(is_on: bool) -> Iterator[None]:
    before = _modes()
    if before is None:
        yield
        return
    flags = before[LOCAL_FLAGS] | termios.ECHO if is_on else before[LOCAL_FLAGS] & ~termios.ECHO
    inside = [*before[:LOCAL_FLAGS], flags, *before[LOCAL_FLAGS + 1 :]]

    def leave() -> None:
        nonlocal inside
        inside = termios.tcgetattr(sys.stdin)  # a line editor has its own
        _set(before)

    try:
        with suspending(leave, lambda: _set(inside)):
            _set(inside)
            yield
    finally:
        _set(before)


def _modes() -> Modes | None:
    """The modes of standard input; None where they are not ours to change.

    Standard input is no terminal; or another program reads the output, such as a pager, which has its own modes; or the terminal is that of
    another process: who changes its modes is stopped.
    """
    try:
        if not sys.stdout.isatty():
            return None
        keyboard = sys.stdin.fileno()
        modes = termios.tcgetattr(keyboard)
    except (AttributeError, OSError, ValueError, termios.error):  # closed, a pipe, or no file at all
        return None
    with contextlib.suppress(OSError):  # not the terminal of this session, so nobody is stopped
        if os.tcgetpgrp(keyboard) != os.getpgrp():
            return None
    return modes


def _set(modes: Modes) -> None:
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, modes)
