"""User errors, the checks that raise them, and connections that are lost."""

import errno
import math
import os
import sys

BAD_FLAGS = 2


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class UserError(Exception):
    """An error that the user can fix. The message holds the value, the limit and what to do."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class LostConnection(ConnectionError):
    """A storage cannot be reached, broke the connection, or answered that it is busy. Worth a retry."""

    def __init__(self, message: str, pause: int = 0) -> None:
        super().__init__(message)
        self.pause = pause  # seconds that the storage asks to wait


def require(condition: bool, message: str, exit_code: int = BAD_FLAGS) -> None:
    """Raise a UserError unless the condition holds; meant for flags."""
    if not condition:
        raise UserError(message, exit_code)


def require_positive(config: object, *names: str) -> None:
    """Require that these numbers of a configuration are above 0."""
    for name in names:
        value = getattr(config, name)
        require(value > 0 and math.isfinite(value), f"--{name.replace('_', '-')} {value}: a number above 0")


def require_not_negative(config: object, *names: str) -> None:
    """Require that these numbers of a configuration are 0 or more."""
    for name in names:
        value = getattr(config, name)
        require(value >= 0 and math.isfinite(value), f"--{name.replace('_', '-')} {value}: a number of 0 or more")


def require_at_most(config: object, **limits: int) -> None:
    """Require that these numbers of a configuration are not above their limits: a typing error must not cost hours, or the machine."""
    for name, limit in limits.items():
        value = getattr(config, name)
        shown = f"{value:g}" if isinstance(value, float) else value
        require(value <= limit, f"--{name.replace('_', '-')} {shown}: at most {limit:,}")


def discard_output() -> None:
    """Discard further output: its reader has left, as `| head` does, or a `tee` that got the same Ctrl-C."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe_os_error(error: OSError) -> str:
    """What the operating system refused, where, and what to do."""
    place = f": {error.filename}" if error.filename else ""
    return f"{error.strerror}{place}. {remedy(error)} and run the same command again"


def remedy(error: OSError) -> str:
    """What to do about what the operating system refused."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space there"
    if error.errno == errno.EFBIG:
        return "Raise the file size limit (ulimit -f), or write to another file system"
    return "Fix this"
