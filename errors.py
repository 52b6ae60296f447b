"""What a person can cause: one line on stderr and an exit code, never a traceback."""

import contextlib
import io
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

BAD_FLAGS = 2


def first_line(error: BaseException) -> str:
    """What a library says of an error, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class UserError(Exception):
    """Something a person can mend. The message holds the value, the limit and the way out."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def require(condition: bool, message: str, exit_code: int = BAD_FLAGS) -> None:
    """Refuse what cannot be meant, flags for the most part."""
    if not condition:
        raise UserError(message, exit_code)


def require_positive(config: object, *names: str) -> None:
    """Refuse a configuration in which one of these numbers is not above 0."""
    for name in names:
        value = getattr(config, name)
        require(value > 0 and math.isfinite(value), f"--{name.replace('_', '-')} {value}: above 0")


def require_not_negative(config: object, *names: str) -> None:
    """Refuse a configuration in which one of these numbers is below 0."""
    for name in names:
        value = getattr(config, name)
        require(value >= 0, f"--{name.replace('_', '-')} {value}: 0 or more")


class Stopped(UserError):
    """A signal ended the run after everything worth keeping was saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message, exit_code=128 + signal_number)


class StopSignals:
    """While this context is open, the first SIGINT or SIGTERM is only noted, so that work in hand can be kept; the second ends at once."""

    def __init__(self, promise: str) -> None:
        self._promise = promise  # what happens now, for the person who pressed Ctrl-C
        self.received: int | None = None

    def __enter__(self) -> "StopSignals":
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
        with contextlib.suppress(OSError):  # the terminal may be gone; and print is not made for signal handlers
            os.write(2, f"\n{self._promise}; once more to stop at once\n".encode())
        self.__exit__()


def silence() -> None:
    """Send what is still printed nowhere: its reader has left, as `| head` does and a `tee` that got the same Ctrl-C."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(main: Callable[[], None]) -> None:
    """Run a script's main function and leave with the exit code that a shell expects."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file shows each line when it is written
    try:
        main()
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        silence()
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno is None:  # not from the operating system
            raise
        place = f": {error.filename}" if error.filename else ""
        print(f"{Path(sys.argv[0]).name}: {error.strerror}{place}. Mend it and run again", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\n{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
