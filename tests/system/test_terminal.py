"""Text on a terminal cannot control it, and typing is hidden while texts grow."""

import contextlib
import os
import pty
import sys
import termios
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from system.escapes import escape_controls
from system.terminal import without_echo


@given(st.text())
def test_escaped_text_cannot_control_a_terminal(text: str) -> None:
    shown = escape_controls(text)
    assert all(character == "\n" or unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp") for character in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
    assert escape_controls(shown) == shown


def test_letters_of_all_scripts_and_joined_emoji_are_unchanged() -> None:
    for text in ("日本語 naïve", "עברית", "👩‍👩‍👧 family", "a\nb"):
        assert escape_controls(text) == text
    assert escape_controls("\x1b[31m\tred\x7f\x9b") == "␛[31m    red␡\\u009b"


@pytest.fixture
def terminal_input(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The descriptor of a pseudo-terminal that is standard input."""
    keyboard, terminal = pty.openpty()
    with os.fdopen(terminal, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield terminal
    os.close(keyboard)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_typed_text_is_hidden_only_while_texts_grow(terminal_input: int, error: type[BaseException] | None) -> None:
    def echoes() -> bool:
        return bool(termios.tcgetattr(terminal_input)[3] & termios.ECHO)

    before = termios.tcgetattr(terminal_input)
    assert echoes()
    with contextlib.suppress(KeyboardInterrupt), without_echo():
        assert not echoes()
        if error:
            raise error
    assert termios.tcgetattr(terminal_input) == before
