"""Which version of the project this is: the number in pyproject.toml, and the commit of a checkout."""

import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def version_line(root: Path = ROOT) -> str:
    """The project's name, its version, and its commit if there is one."""
    number, (commit, *dirty) = project_version(root), find_commit(root).partition("-dirty")
    line = f"backgpt {number}" if number else "backgpt, of an unknown version"
    return f"{line} (commit {commit[:7]}{dirty[0]})" if commit else line


def project_version(root: Path = ROOT) -> str:
    """The number; empty if someone copied the scripts without pyproject.toml."""
    try:
        return str(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, ValueError, KeyError):
        return ""


def find_commit(root: Path = ROOT) -> str:
    """The commit of a checkout, with -dirty if files have changed since; empty if it is no checkout, or there is no git."""
    if not (root / ".git").exists():  # a folder inside some other checkout has the commit of that
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):  # git is not installed, or hangs
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
