"""Owns retries after a lost connection."""

import time
from collections.abc import Callable
from typing import TypeVar

from system.amounts import amount
from system.errors import UserError, first_line
from system.escapes import tell

Result = TypeVar("Result")


class Retries:
    """Pauses before each retry, each twice the one before, and gives up after a number of them."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._used = 0

    def wait(self, trouble: str, error: Exception, advice: str = "") -> None:
        """Print what went wrong and pause, or give up with advice."""
        if self._used == self._retries:
            raise UserError(
                f"{trouble}: {first_line(error)}. Gave up after {amount(self._used, 'retry', 'retries')}; finished work is kept. "
                f"{advice}Run the same command again to resume, or read local files with --input"
            ) from error
        pause = max(2**self._used, getattr(error, "pause", 0))
        tell(f"{trouble}: {first_line(error)}. Trying again in {pause} s")
        time.sleep(pause)
        self._used += 1

    def restore(self) -> None:
        """Allow the full number of retries again, after a success."""
        self._used = 0


def retry(count: int, what: str, function: Callable[[], Result]) -> Result:
    """The result of a function that may lose its connection while reading this."""
    retries = Retries(count)
    while True:
        try:
            return function()
        except ConnectionError as error:
            retries.wait(f"lost the connection while reading {what}", error)
