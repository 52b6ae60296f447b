"""Runs the project's scripts, as a person would in a shell."""

import subprocess
import sys
from pathlib import Path

from system.errors import UserError
from system.escapes import tell


def call_script(script: str, *flags: str | float | Path) -> None:
    """Run a script and show what it prints; where it fails, so does the experiment."""
    command = [script, *map(str, flags)]
    tell(f"\n$ python {' '.join(command)}")
    if subprocess.run([sys.executable, *command], check=False).returncode:
        raise UserError(f"{script} failed; see its message above. Run the same command again to go on")
