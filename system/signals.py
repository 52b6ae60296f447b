"""Signals: stopping a run after its work is saved, and Ctrl-C and Ctrl-Z at a prompt."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from system.errors import UserError


class Stopped(UserError):
    """A signal ended the run; everything worth keeping was saved first."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message, exit_code=128 + signal_number)


class StopSignals:
    """In this context the first SIGINT or SIGTERM is only recorded, so that current work can be saved; a second one stops at once."""

    def __init__(self, promise: str) -> None:
        self._promise = promise  # shown to the person who pressed Ctrl-C; may be empty
        self.received: int | None = None

    def __enter__(self) -> "StopSignals":
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
        if self._promise:
            with contextlib.suppress(OSError):  # the terminal may be gone; print is not safe in a signal handler
                os.write(2, f"\n{self._promise}; press Ctrl-C again to stop at once\n".encode())
        self.__exit__()


@contextlib.contextmanager
def ending_orderly() -> Iterator[None]:
    """In this context SIGTERM ends the process by an exception, so that a terminal is left as it was found."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def suspending(leave: Callable[[], None], come_back: Callable[[], None]) -> Iterator[None]:
    """In this context Ctrl-Z calls `leave`, and `come_back` when the process goes on. Of nested contexts the inner one leaves first."""
    outer = signal.getsignal(signal.SIGTSTP)
    if outer == signal.SIG_IGN:
        yield
        return

    def suspend(number: int, frame: FrameType | None) -> None:
        leave()
        if callable(outer):
            outer(number, frame)
        else:
            innermost = signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)  # the process stops here, unless there is no shell that could continue it
            signal.signal(number, innermost)
        come_back()

    signal.signal(signal.SIGTSTP, suspend)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, outer)


@dataclass
class Interrupt:
    """Records whether Ctrl-C was pressed in this context."""

    pressed: bool = False

    def __enter__(self) -> "Interrupt":
        self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)
