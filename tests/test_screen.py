"""Text on a terminal: nothing drives it, and what grows at its beginning keeps its end in place."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from repl import HELP
from screen import hang, harmless, wrap_from_end


@given(st.text())
def test_nothing_that_is_shown_drives_a_terminal(text: str) -> None:
    shown = harmless(text)
    assert all(character == "\n" or unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp") for character in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
    assert harmless(shown) == shown


def test_letters_of_all_scripts_and_joined_emoji_stay() -> None:
    for text in ("日本語 naïve", "עברית", "👩‍👩‍👧 family", "a\nb"):
        assert harmless(text) == text
    assert harmless("\x1b[31m\tred\x7f\x9b") == "␛[31m    red␡\\u009b"


WORDS = st.lists(st.sampled_from(["a", "the", "cat", "sleeping.", "日本語", "🙂", "", "extraordinarily-long-word", "\n"]), max_size=40).map(
    " ".join
)


@given(WORDS, st.integers(4, 30))
def test_lines_fit_and_hold_the_text(text: str, width: int) -> None:
    lines = wrap_from_end(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace("\n", "").replace(" ", "")


@given(WORDS, st.sampled_from(["a", "cat", "sleeping.", "日本語"]), st.integers(12, 30))
def test_what_stands_stays_while_the_text_grows_at_its_beginning(text: str, word: str, width: int) -> None:
    before, after = wrap_from_end(text, width), wrap_from_end(f"{word} {text}", width)
    assert after[len(after) - len(before) + 1 :] == before[1:]


def test_what_does_not_fit_goes_on_below_its_meaning() -> None:
    assert hang("  a=1      one two three", 23) == "  a=1      one two\n           three"
    assert hang("one\n\n  plain words and more", 12) == "one\n\n  plain\n  words and\n  more"
    assert hang(HELP, 40).split() == HELP.split()
    for width in (1, 2, 8, 20, 80):
        assert all(len(line) <= max(width, 2) for line in hang(HELP, width).split("\n"))
