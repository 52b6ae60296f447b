"""The version: the number in pyproject.toml, and the commit where there is one."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from system.version import version_line
from tests.conftest import ROOT


def test_the_number_is_that_of_the_project(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    number = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert version_line(tmp_path) == f"backgpt {number}"
    assert version_line().startswith(f"backgpt {number}")
    (tmp_path / "pyproject.toml").write_text("broken [")
    assert version_line(tmp_path) == "backgpt, of an unknown version"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_checkout_has_a_commit_and_a_folder_in_another_checkout_has_none(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x"]
        return subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    inner = tmp_path / "inner"
    inner.mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    git("init", "-q")
    assert "commit" not in version_line(tmp_path)
    git("add", ".")
    git("commit", "-qm", "x")
    git("tag", "v9")
    assert version_line(tmp_path).endswith(f" (commit {git('rev-parse', '--short', 'HEAD')})")
    (tmp_path / "pyproject.toml").write_text("")
    assert version_line(tmp_path).endswith("-dirty)")
    assert "commit" not in version_line(inner)
