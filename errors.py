"""What a person can cause: one line on stderr and an exit code, never a traceback."""

import os
import signal
import sys
from collections.abc import Callable

BAD_FLAGS = 2


class UserError(Exception):
    """Something a person can mend. The message holds the value, the limit and the way out."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Stopped(UserError):
    """A signal ended the run after everything worth keeping was saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message, exit_code=128 + signal_number)


def run(main: Callable[[], None]) -> None:
    """Run a script's main function and leave with the exit code that a shell expects."""
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"\n{os.path.basename(sys.argv[0])}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
