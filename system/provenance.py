"""How something was made: the command, the commit of the checkout, the versions of what computed it."""

import importlib.metadata
import platform
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LIBRARIES = ("torch", "numpy", "sentencepiece")


def describe_program() -> dict[str, Any]:
    """What a result depends on beside its settings and data. Nothing here is compared when a run resumes."""
    versions = {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES} | {"backgpt": _own_version()}
    command = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"command": command, "commit": read_commit(ROOT), "versions": versions}


def read_commit(root: Path) -> str:
    """The commit of a checkout, read from its files; empty if it is none, or one that is not understood."""
    try:
        git = root / ".git"
        if git.is_file():  # of another worktree, or of a submodule
            git = root / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return _hash(head)
        name = head.removeprefix("ref: ")
        shared = git / (git / "commondir").read_text(encoding="utf-8").strip() if (git / "commondir").is_file() else git
        for folder in (git, shared):
            if (folder / name).is_file():
                return _hash((folder / name).read_text(encoding="utf-8").strip())
        packed = (line.split() for line in (shared / "packed-refs").read_text(encoding="utf-8").splitlines())
        return next((_hash(words[0]) for words in packed if words[1:] == [name]), "")
    except (OSError, ValueError):
        return ""


def _hash(text: str) -> str:
    return text if len(text) in (40, 64) and set(text) <= set("0123456789abcdef") else ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _own_version() -> str:
    try:
        return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, ValueError, KeyError):
        return ""
