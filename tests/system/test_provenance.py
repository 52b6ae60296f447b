"""What a record says of the program that made it."""

import platform
import shlex
import subprocess
from pathlib import Path

import numpy
import pytest

from system.provenance import describe_program


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def test_the_command_can_be_pasted_into_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train_xcoax.py", "demo", "--sample-prompt", "It's the end.", "--out-dir", "a b"]
    monkeypatch.setattr("sys.argv", [f"some/where/{words[0]}", *words[1:]])
    assert shlex.split(describe_program()["command"]) == ["python", *words]


def test_versions_are_those_that_run() -> None:
    versions = describe_program()["versions"]
    assert (versions["python"], versions["numpy"]) == (platform.python_version(), numpy.__version__)
    assert versions["torch"] and versions["sentencepiece"] and versions["backgpt"]
