"""Bytes as text: line endings and invalid UTF-8."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.utf8 import decode_utf8, normalize_line_endings


def test_crlf_becomes_lf_and_a_lone_carriage_return_stays() -> None:
    assert normalize_line_endings(b"a\r\nb\rc\n") == b"a\nb\rc\n"


@given(st.text())
def test_valid_utf8_is_decoded_unchanged(text: str) -> None:
    assert decode_utf8(text.encode()) == text


@pytest.mark.parametrize("data", [None, b"\xff", b"a\xc3", b"\xed\xa0\x80"])
def test_nothing_and_invalid_utf8_give_none(data: bytes | None) -> None:
    assert decode_utf8(data) is None
