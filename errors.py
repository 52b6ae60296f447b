"""What a person can cause: one line on stderr and an exit code, never a traceback."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

BAD_FLAGS = 2
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}  # of a disk that is full or may not be written


class UserError(Exception):
    """Something a person can mend. The message holds the value, the limit and the way out."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


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
        print(f"\n{self._promise}; once more to stop at once", file=sys.stderr, flush=True)
        self.__exit__()


def run(main: Callable[[], None]) -> None:
    """Run a script's main function and leave with the exit code that a shell expects."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file shows each line when it is written
    try:
        main()
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(
            f"{Path(sys.argv[0]).name}: {error.strerror}: {error.filename or 'a file'}. Mend it and run again",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\n{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
