"""Runs commands on a disk that fails at a chosen call, each in a process of its own that is forked from a warm one."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT

FAULTS = ("none", "full", "I/O error", "read-only", "short write", "kill", "power cut")  # as failing_disk.c numbers them


class Ended(NamedTuple):
    """How a command ended."""

    code: int  # below 0: the signal that killed it
    stdout: str
    stderr: str
    calls: list[str]  # that changed something below the folder: what and where


class Warm:
    """The warm process."""

    def __init__(self, process: subprocess.Popen[str], disk: Path) -> None:
        self._process = process
        self._disk = disk

    def run(self, folder: Path, command: Sequence[object], fault: str = "none", at: int = 0, chunk: int = 0, picture: bool = True) -> Ended:
        """Run a command; the call with this number below the folder meets the fault.

        `chunk`: documents in a chunk, where the command preprocesses. `picture`: whether it draws, which takes longest where it trains.
        """
        script, *flags = map(str, command)
        files = {name: self._disk.with_name(name) for name in ("out", "err", "log")}
        for path in files.values():
            path.write_bytes(b"")
        case = {"root": str(ROOT), "script": script, "flags": flags, "disk": str(self._disk), "folder": str(folder)}
        case |= {name: str(path) for name, path in files.items()}
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({**case, "at": at, "fault": FAULTS.index(fault), "chunk": chunk, "picture": picture}) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        out, err, log = (files[name].read_text(encoding="utf-8") for name in ("out", "err", "log"))
        return Ended(os.waitstatus_to_exitcode(status), out, err, log.splitlines())


def why_not() -> str:
    """Why there is no failing disk here; empty if there is one."""
    if sys.platform != "linux":
        return "LD_PRELOAD is for Linux"
    return "" if shutil.which("cc") else "no C compiler"


@contextlib.contextmanager
def warm_process(*modules: str) -> Iterator[Warm]:
    """Build the failing disk and start a process that has imported these modules."""
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "failing_disk.so"
        source = Path(__file__).with_name("failing_disk.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", disk, source, "-ldl"], check=True)
        environment = {**os.environ, "LD_PRELOAD": str(disk), "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            [sys.executable, "-m", "tests.faults.warm_process", *modules],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout and process.stdout.readline() == "warm\n"
            yield Warm(process, disk)
            process.communicate()
