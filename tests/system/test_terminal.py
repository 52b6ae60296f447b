"""Text on a terminal: it cannot control the terminal, and text that grows on the left keeps its other lines."""

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
from rich.cells import cell_len

from sampling.prompt_settings import HELP
from system.escapes import escape_controls
from system.terminal import hanging_indent, without_echo, wrap_from_end


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


WORDS = st.lists(st.sampled_from(["a", "the", "cat", "sleeping.", "日本語", "🙂", "", "extraordinarily-long-word", "\n"]), max_size=40).map(
    " ".join
)


@given(WORDS, st.integers(4, 30))
def test_lines_fit_and_contain_the_whole_text(text: str, width: int) -> None:
    lines = wrap_from_end(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace("\n", "").replace(" ", "")


@given(WORDS, st.sampled_from(["a", "cat", "sleeping.", "日本語"]), st.integers(12, 30))
def test_finished_lines_do_not_change_while_the_text_grows_at_its_beginning(text: str, word: str, width: int) -> None:
    before, after = wrap_from_end(text, width), wrap_from_end(f"{word} {text}", width)
    assert after[len(after) - len(before) + 1 :] == before[1:]


def test_further_lines_are_indented_to_the_description() -> None:
    assert hanging_indent("  a=1      one two three", 23) == "  a=1      one two\n           three"
    assert hanging_indent("one\n\n  plain words and more", 12) == "one\n\n  plain\n  words and\n  more"
    assert hanging_indent(HELP, 40).split() == HELP.split()
    for width in (1, 2, 8, 20, 80):
        assert all(len(line) <= max(width, 2) for line in hanging_indent(HELP, width).split("\n"))


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
