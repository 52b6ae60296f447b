"""What a record says of the program that made it."""

import platform
import shlex
import subprocess
from pathlib import Path

import numpy
import pytest

from system.provenance import describe_program, read_commit


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


def test_the_commit_is_that_of_git_in_every_kind_of_checkout(tmp_path: Path) -> None:
    main = tmp_path / "main"
    main.mkdir()
    git(main, "init", "--initial-branch", "first")
    assert read_commit(main) == ""  # nothing has been committed
    git(main, "commit", "--allow-empty", "--message", "a")
    git(main, "worktree", "add", "-b", "second/branch", "../other")
    other = tmp_path / "other"
    git(other, "commit", "--allow-empty", "--message", "b")
    for _ in range(2):
        for folder in (main, other):
            assert read_commit(folder) == git(folder, "rev-parse", "HEAD") != ""
        git(main, "pack-refs", "--all")
    git(main, "checkout", "--detach", "second/branch")
    assert read_commit(main) == read_commit(other) != ""


def test_without_a_checkout_or_in_a_damaged_one_there_is_no_commit(tmp_path: Path) -> None:
    assert read_commit(tmp_path) == ""
    (tmp_path / ".git").write_text("gitdir: nowhere")
    assert read_commit(tmp_path) == ""
    (tmp_path / ".git").unlink()
    (tmp_path / ".git").mkdir()
    for head in (b"something else", b"\xff", b"ref: refs/heads/none"):
        (tmp_path / ".git" / "HEAD").write_bytes(head)
        assert read_commit(tmp_path) == ""
