"""Text made safe for a terminal."""

import io
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from system.escapes import escape_controls, one_line, tell


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\x1b\x07\r\n\x9b\u202e\u2028\ud800")))
def test_no_text_drives_the_terminal(text: str) -> None:
    shown = escape_controls(text)
    assert all(character == "\n" or unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp") for character in shown)
    assert not set(shown) & set("\x1b\x07\r\x9b\u202e\u2028\ud800")


@given(st.text(max_size=3000), st.integers(40, 700))
def test_one_line_is_one_short_line(text: str, limit: int) -> None:
    shown = one_line(text.replace("\t", " "), limit)
    assert len(shown.splitlines()) <= 1
    assert len(one_line("x" * len(text), limit)) <= limit
    if len(text) <= limit and text.isascii() and text.isprintable():
        assert shown.split() == text.split()


def test_what_is_told_is_escaped_also_in_a_file() -> None:
    """A log is read in a terminal later. A name of bytes that are no UTF-8 can be printed, too."""
    file = io.StringIO()
    tell("evil\x1b]52;c;eA==\x07\udcff.txt\nnext", file)
    assert file.getvalue() == "evil␛]52;c;eA==␇\\udcff.txt\nnext\n"
