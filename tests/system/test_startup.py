"""The end of a script: one line on stderr and the right exit code for what a user can cause; other errors keep their traceback."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from system.startup import LONGEST_ERROR, run_script

import pytest

from system.errors import UserError
from system.version import version_line
from tests.conftest import ROOT, call_script


def end_of(main: Callable[[], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[object, str]:
    """The exit code of a script, and what it prints on stderr."""
    monkeypatch.setattr("sys.argv", ["/somewhere/script.py"])
    with pytest.raises(SystemExit) as caught:
        run_script(main)
    return caught.value.code, capsys.readouterr().err


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "exit_code", "printed"),
    [
        (UserError("no data. Run: make"), 1, "script.py: no data. Run: make\n"),
        (UserError("--lr 0: above 0", 2), 2, "script.py: --lr 0: above 0\n"),
        (ConnectionError("hf://x: the storage is busy"), 1, "script.py: hf://x: the storage is busy\n"),
        (
            PermissionError(13, "Permission denied", "out/x"),
            1,
            "script.py: Permission denied: out/x. Fix this and run the same command again\n",
        ),
        (
            OSError(28, "No space left on device", "out/x"),
            1,
            "script.py: No space left on device: out/x. Free some space there and run the same command again\n",
        ),
        (
            OSError(27, "File too large", "out/x"),
            1,
            "script.py: File too large: out/x. Raise the file size limit (ulimit -f), or write to another file system "
            "and run the same command again\n",
        ),
        (UserError("no field \x1b[31mred\x07\nof two lines"), 1, "script.py: no field \u241b[31mred\u2407 of two lines\n"),
        (KeyboardInterrupt(), 130, "\nscript.py: interrupted\n"),
    ],
)
def test_what_a_user_can_cause_ends_in_one_line(
    error: BaseException, exit_code: int, printed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert end_of(raising(error), capsys, monkeypatch) == (exit_code, printed)


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("not from the operating system")])
def test_other_errors_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        run_script(raising(error))


def test_a_script_that_works_returns() -> None:
    run_script(lambda: None)


def test_a_name_of_a_megabyte_makes_no_long_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, printed = end_of(raising(UserError(f"no field {'x' * (1 << 20)}. Choose one with --field")), capsys, monkeypatch)
    assert len(printed) <= LONGEST_ERROR + len("script.py: \n")
    assert printed.startswith("script.py: no field xxx") and printed.endswith("Choose one with --field\n")


def test_ctrl_c_while_a_script_imports_ends_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'presets':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run([sys.executable, str(ROOT / "sample_xcoax.py")], env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "\nsample_xcoax.py: interrupted\n")


def test_without_the_packages_a_script_says_how_to_get_them() -> None:
    command = [sys.executable, "-S", "sample_xcoax_instruct.py", "small"]  # -S: without what is installed
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"sample_xcoax_instruct.py: torch is not installed for {sys.executable}. Activate the environment ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", sorted(path.name for path in ROOT.glob("*.py") if "run_script(main)" in path.read_text()))
def test_every_script_tells_its_version(script: str) -> None:
    result = call_script(script, "--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{version_line()}\n"
