"""How something was made: the command, the commit of the checkout, the versions of what computed it."""

import importlib.metadata
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from system.version import find_commit, project_version

LIBRARIES = ("torch", "numpy", "sentencepiece")


def describe_program() -> dict[str, Any]:
    """What a result depends on beside its settings and data. Nothing here is compared when a run resumes."""
    versions = {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES} | {"backgpt": project_version()}
    command = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"command": command, "commit": find_commit(), "versions": versions}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
