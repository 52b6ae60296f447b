"""Owns stages with a time limit: commands whose output is shown and kept."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

GRACE_SECONDS = 30.0  # from the request to stop to the kill


@dataclass(frozen=True)
class Stage:
    """What became of a command."""

    command: str
    output: str
    exit_code: int
    seconds: float
    is_cut: bool = False  # it was stopped at its limit

    def describe_end(self) -> str:
        """Why it has not finished its work; empty if it has."""
        if self.is_cut:
            return f"`{self.command.partition(' --')[0]}` was stopped after {self.seconds:.0f} s"
        last = next((line.strip() for line in reversed(self.output.splitlines()) if re.search(r"\w", line)), "no output")
        return f"failed with exit code {self.exit_code}: {last}" if self.exit_code else ""


def run_stage(title: str, arguments: Sequence[str], limit_seconds: float) -> Stage:
    """Run a Python script or module and show what it prints. At its limit it is asked to stop as Ctrl-C does, later killed."""
    command = f"python {' '.join(arguments)}"
    print(f"\n{title}\n$ {command}")
    started = time.monotonic()
    # In the background of a shell Ctrl-C is ignored, and the stage would inherit that.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        process_group=0,  # its own processes end with it
    )
    signal.signal(signal.SIGINT, handler)

    def send(number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    timers = [
        threading.Timer(limit_seconds, send, (signal.SIGINT,)),
        threading.Timer(limit_seconds + GRACE_SECONDS, send, (signal.SIGKILL,)),
    ]
    lines: list[str] = []
    with process:
        for timer in timers:
            timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="")
                lines.append(line)
            process.wait()
        finally:
            for timer in timers:
                timer.cancel()
            send(signal.SIGKILL)  # what it left behind; or all of it, on Ctrl-C
    seconds = time.monotonic() - started
    return Stage(command, "".join(lines), process.returncode, seconds, is_cut=seconds >= limit_seconds)
