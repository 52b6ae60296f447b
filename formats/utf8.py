"""The bytes of documents as text, where they are UTF-8."""

from system.amounts import amount
from system.encodings import likely_encoding
from system.errors import UserError

LOOKED_AT = 1000  # rows: a file in which so many are invalid, and none before is valid, is not UTF-8


def normalize_line_endings(text: bytes) -> bytes:
    """CRLF becomes LF. Applied to every document before anything else."""
    return text.replace(b"\r\n", b"\n") if b"\r" in text else text  # most texts have none, and checking is fast


def is_unicode(text: str) -> bool:
    """Whether text can be encoded: JSON may contain lone surrogates, which cannot."""
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text) if not text.isascii() else True


def decode_utf8(text: bytes | None) -> str | None:
    """The text; None for None and for invalid UTF-8 (lone surrogates included)."""
    try:
        return None if text is None else text.decode()
    except UnicodeDecodeError:
        return None


class Utf8Rows:
    """Counts the rows of a file that are not UTF-8. A file in which no row is valid is in another encoding, and refused."""

    def __init__(self, path: str, refuse: bool = True) -> None:
        self._path = path
        self._refuse = refuse
        self._rows = self._invalid = 0
        self._is_valid = True  # the row added last
        self._likely = ""  # encoding, once there was an invalid row

    def add(self, row: bytes, valid: bool | None = None, continues: bool = False) -> None:
        """Look at the next row, or at a further part of one; `valid` if that is known."""
        if not row or row.isspace():
            return
        was_valid = self._is_valid if continues else True
        self._is_valid = was_valid and (decode_utf8(row) is not None if valid is None else valid)
        self._rows += not continues
        if was_valid and not self._is_valid:
            self._invalid += 1
            self._likely = self._likely or likely_encoding(row)
            if self._rows == LOOKED_AT:
                self.finish()

    def finish(self) -> None:
        """Refuse a file without a valid row."""
        if self._refuse and self._invalid and self._invalid == self._rows:
            raise UserError(
                f"{self._path} is not UTF-8. Name its encoding, perhaps with --encoding {self._likely}; or skip it with --skip-bad-rows"
            )

    @property
    def notice(self) -> str:
        """What can be done about invalid rows; empty if there are none."""
        if not self._invalid:
            return ""
        return (
            f"{self._path}: {self._invalid:,} of {amount(self._rows, 'row')} skipped as not valid UTF-8. "
            f"If it is in another encoding, name it: --encoding {self._likely}"
        )
