"""User errors: one line on stderr and an exit code, never a traceback."""

import io
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

BAD_FLAGS = 2


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class UserError(Exception):
    """An error that the user can fix. The message holds the value, the limit and what to do."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def require(condition: bool, message: str, exit_code: int = BAD_FLAGS) -> None:
    """Raise a UserError unless the condition holds; meant for flags."""
    if not condition:
        raise UserError(message, exit_code)


def require_positive(config: object, *names: str) -> None:
    """Require that these numbers of a configuration are above 0."""
    for name in names:
        value = getattr(config, name)
        require(value > 0 and math.isfinite(value), f"--{name.replace('_', '-')} {value}: above 0")


def require_not_negative(config: object, *names: str) -> None:
    """Require that these numbers of a configuration are 0 or more."""
    for name in names:
        value = getattr(config, name)
        require(value >= 0, f"--{name.replace('_', '-')} {value}: 0 or more")


def discard_output() -> None:
    """Discard further output: its reader has left, as `| head` does, or a `tee` that got the same Ctrl-C."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function and exit with the code that a shell expects."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file shows each line when it is written
    try:
        main()
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        discard_output()
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno is None:  # not from the operating system
            raise
        place = f": {error.filename}" if error.filename else ""
        print(f"{Path(sys.argv[0]).name}: {error.strerror}{place}. Fix this and run the same command again", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\n{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
