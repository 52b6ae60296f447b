"""Text on a terminal cannot control it."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from system.escapes import escape_controls


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
