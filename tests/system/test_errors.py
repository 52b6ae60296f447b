"""User errors: one line on stderr and the right exit code; every other error keeps its traceback."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from system.errors import UserError, first_line, require, require_not_negative, require_positive, run_script


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
        (
            PermissionError(13, "Permission denied", "out/x"),
            1,
            "script.py: Permission denied: out/x. Fix this and run the same command again\n",
        ),
        (OSError(28, "No space left on device"), 1, "script.py: No space left on device. Fix this and run the same command again\n"),
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


def test_the_first_line_of_an_error() -> None:
    assert first_line(ValueError("\none\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("x" * 5000))) == 200


@dataclass
class Numbers:
    max_steps: float
    seed: float = 0


def test_requirements_name_the_flag_its_value_and_the_limit() -> None:
    require(True, "never shown")
    require_positive(Numbers(1), "max_steps")
    require_not_negative(Numbers(0), "max_steps", "seed")
    for value in (0, -1, float("inf"), float("nan")):
        with pytest.raises(UserError, match=f"--max-steps {value}: above 0") as caught:
            require_positive(Numbers(value), "max_steps")
        assert caught.value.exit_code == 2
    with pytest.raises(UserError, match="--seed -1: 0 or more"):
        require_not_negative(Numbers(1, -1), "max_steps", "seed")
