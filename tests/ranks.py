"""Runs of several processes: torchrun, as users start it."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from system.startup import run_script
import torch
from system.errors import UserError
from system.ranks import join_ranks

def main():
    with join_ranks("cpu") as (ranks, device):
        check(ranks)
        print("done")

def check(ranks):
    {body}

run_script(main)
"""


def torchrun_command(count: int, command: Sequence[object], *flags: object) -> list[str]:
    """The command line that starts a command in `count` processes, with further flags of torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", count, *flags]
    return list(map(str, [*launcher, *command]))


def torchrun(count: int, command: Sequence[object], *flags: object) -> subprocess.CompletedProcess[str]:
    """Run a command in `count` processes."""
    line = torchrun_command(count, command, *flags)
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def told_by_script(result: subprocess.CompletedProcess[str] | str, script: str = "train_xcoax.py") -> list[str]:
    """The lines of standard error that the script printed, without those of torchrun."""
    errors = result if isinstance(result, str) else result.stderr
    return [line for line in errors.splitlines() if line.startswith(f"{script}: ")]


def in_processes(count: int, folder: Path, body: str) -> tuple[int, str, list[str]]:
    """Run these lines, which know `ranks`, in several processes; exit code, output, and the errors that the script told."""
    script = folder / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), body="\n    ".join(body.strip().splitlines())), encoding="utf-8")
    result = torchrun(count, [script])
    return result.returncode, result.stdout, told_by_script(result, "script.py")
