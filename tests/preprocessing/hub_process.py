"""Calls functions in forks of a process that knows only the stand-in hub and has imported the heavy libraries once.

A fork is as fresh as a new process, in a tenth of the time: no call sees what an earlier one has cached.
"""

import os
import pickle
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tests.conftest import ROOT

Result = TypeVar("Result")


def hub_environment(url: str, folder: Path) -> dict[str, str]:
    """An environment with the hub at this address and its cache in a folder, in which no other host can be reached."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_") and not name.lower().endswith("_proxy")}
    own = {"HF_ENDPOINT": url, "HF_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return {**inherited, **own, "HTTP_PROXY": url, "HTTPS_PROXY": url, "ALL_PROXY": url, "NO_PROXY": "127.0.0.1"}


def run_with_hub(arguments: list[str], url: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Python command as a person would, in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**hub_environment(url, folder), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


class HubProcess:
    """The process that forks; a context manager."""

    def __init__(self, url: str, folder: Path) -> None:
        command = [sys.executable, "-m", "tests.preprocessing.hub_process"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, env=hub_environment(url, folder), stdin=pipe, stdout=pipe)

    def __enter__(self) -> "HubProcess":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()

    def call(self, function: Callable[..., Result], *arguments: object, **options: object) -> Result:
        """Call a function of a module in a fork, without pauses between retries."""
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump((function, arguments, options), self._process.stdin)
        self._process.stdin.flush()
        result, error = pickle.load(self._process.stdout)
        assert not error, error
        return result  # type: ignore[no-any-return]  # from a pickle


def _serve() -> None:
    import datasets  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch  # noqa: F401  datasets imports it when it streams

    import tests.preprocessing.test_hub  # noqa: F401  imports what its functions need

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries that print do not disturb the answers
    while True:
        try:
            function, arguments, options = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if (child := os.fork()) == 0:
            _answer(answers, function, arguments, options)
        if os.waitpid(child, 0)[1]:
            pickle.dump((None, "the fork was killed"), answers)
            answers.flush()


def _answer(answers: Any, function: Callable[..., object], arguments: tuple[object, ...], options: dict[str, object]) -> None:
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)
    time.sleep = lambda seconds: None
    try:
        outcome = function(*arguments, **options), ""
    except BaseException:  # noqa: BLE001  the test shows it
        outcome = None, traceback.format_exc()
    pickle.dump(outcome, answers)
    answers.flush()
    os._exit(0)


if __name__ == "__main__":
    _serve()
