"""Which version of the project this is: the number in pyproject.toml, and the commit of a checkout."""

import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def version_line(root: Path = ROOT) -> str:
    """The project's name, its version, and its commit if there is one."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        version = f"{project['name']} {project['version']}"
    except (OSError, ValueError, KeyError):  # someone copied the scripts without it
        version = "backgpt, of an unknown version"
    commit = _commit(root)
    return f"{version} (commit {commit})" if commit else version


def _commit(root: Path) -> str:
    if not (root / ".git").exists():  # a folder inside some other checkout has the commit of that
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):  # git is not installed, or hangs
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
