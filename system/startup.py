"""How a script starts and ends: one line for every error that the user can fix, for Ctrl-C from the first moment on, and for --version.

The only module whose import has an effect: missing packages, and Ctrl-C until `run_script` takes over, end the process in one line
instead of a traceback out of some import. So a script imports it before anything else.
"""

import contextlib
import importlib.util
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from system.errors import UserError, describe_os_error, discard_output
from system.escapes import one_line
from system.memory import limit_kernels
from system.version import version_line

LONGEST_ERROR = 700  # characters: names in a user's files can be of any length
MISSING = [package for package in ("torch", "tyro") if importlib.util.find_spec(package) is None]
TO_INSTALL = "Activate the environment that make installed: . .venv/bin/activate. Or install: pip install -r requirements.txt"


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, f"\n{_script()}: interrupted\n".encode())
    os._exit(128 + number)


def _script() -> str:
    return Path(sys.argv[0]).name


def _leave(message: str, exit_code: int) -> NoReturn:
    print(f"{_script()}: {one_line(message, LONGEST_ERROR)}", file=sys.stderr)
    sys.exit(exit_code)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # ignored in the background of a shell, it stays so
    signal.signal(signal.SIGINT, _interrupted)
if MISSING:
    _leave(f"{MISSING[0]} is not installed for {sys.executable}. {TO_INSTALL}", 1)


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function and exit with the code that a shell expects."""
    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("LOCAL_RANK", "0") != "0":  # of torchrun's processes on one machine, the first speaks for the others
        discard_output()
        sys.stderr = io.StringIO()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file shows each line when it is written
    limit_kernels()
    several = "TORCHELASTIC_RUN_ID" in os.environ  # threads of gloo outlive their group of processes and can abort a teardown
    try:
        _run(main)
    except SystemExit as end:
        if isinstance(end.code, int) and (several or end.code == 128 + signal.SIGTERM):  # whoever sends SIGTERM waits
            _end_at_once(end.code)
        raise
    if several:
        _end_at_once(0)


def _run(main: Callable[[], None]) -> None:
    try:
        if "--version" in sys.argv[1:]:
            print(version_line())
        else:
            main()
    except UserError as error:
        _leave(str(error), error.exit_code)
    except BrokenPipeError:
        discard_output()
        sys.exit(128 + signal.SIGPIPE)
    except ConnectionError as error:
        _leave(describe_os_error(error) if error.errno else str(error), 1)
    except OSError as error:
        if error.errno is None:  # not from the operating system
            raise
        _leave(describe_os_error(error), 1)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        _leave("interrupted", 128 + signal.SIGINT)


def _end_at_once(exit_code: int) -> NoReturn:
    """End without the teardown of the interpreter and the libraries."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(exit_code)
