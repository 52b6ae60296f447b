"""Encodings: names that Python knows, guesses from bytes, and text in any of them read as UTF-8."""

import io

import pytest

from system.encodings import WIDE, AsUtf8, canonical_encoding, is_text_encoding, likely_encoding, marked_encoding, wide_encoding
from system.errors import UserError


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "latin1", "cp1252", "utf_16_le", "shift_jis", "utf-8-sig"])
def test_names_of_text_encodings_are_known(name: str) -> None:
    assert is_text_encoding(name)


@pytest.mark.parametrize("name", ["", "utf-99", "base64", "rot13", "hex", "undefined", "a\0b", "é"])
def test_other_names_are_not(name: str) -> None:
    assert not is_text_encoding(name)


def test_an_encoding_has_one_name() -> None:
    assert canonical_encoding("UTF8") == canonical_encoding("utf_8") == "utf-8"
    assert canonical_encoding("latin1") == canonical_encoding("ISO-8859-1")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("order", ["le", "be"])
def test_a_mark_tells_the_encoding(encoding: str, order: str) -> None:
    text = "\ufeffé".encode(f"{encoding}-{order}")
    assert marked_encoding(text) == likely_encoding(text) == encoding
    assert text.decode(encoding) == "é"


def test_without_a_mark_a_guess_can_read_every_byte() -> None:
    assert marked_encoding("\ufeffé".encode()) == marked_encoding(b"") == ""
    assert likely_encoding("“é”".encode("cp1252")) == "cp1252"
    assert likely_encoding(b"\x81") == "latin-1"


@pytest.mark.parametrize("encoding", [encoding for encoding, *_ in WIDE])
def test_ascii_in_wide_characters_is_told_without_a_mark(encoding: str) -> None:
    for text in ("ab", "“Text” of letters, é\n" * 99):
        assert wide_encoding(text.encode(encoding)) == encoding
        assert wide_encoding(text.encode()) == ""
    assert wide_encoding(b"a\0bcdefgh") == wide_encoding(b"\0" * 8) == wide_encoding(b"a") == ""


def test_the_file_below_is_closed_too_and_wrong_bytes_are_named() -> None:
    below = io.BytesIO("é".encode("utf-16"))
    with io.BufferedReader(AsUtf8(below, "utf-16", "a.txt")) as file:
        assert file.read(1) == b"\xc3"
    assert below.closed
    with pytest.raises(UserError, match="a.txt is not in utf-16: .*does not start with BOM. Name another --encoding"):
        io.BufferedReader(AsUtf8(io.BytesIO(b"abc"), "utf-16", "a.txt")).read()
