"""Encodings of text: which Python knows, which one bytes that are not UTF-8 may be in, and bytes of any as UTF-8."""

import codecs
import io
from typing import IO, Any

from system.errors import UserError, first_line

READ_BYTES = 1 << 20  # decoded at once
# A mark of UTF-32 begins like one of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Text without a mark that is mostly ASCII: in each so many bytes, all but the one at this place are zero.
WIDE = (("utf-16-le", 2, 0), ("utf-16-be", 2, 1), ("utf-32-le", 4, 0), ("utf-32-be", 4, 3))
LOOKED_AT = 1000  # bytes, for that
UTF8 = "utf-8"


def is_text_encoding(name: str) -> bool:
    """Whether Python can read text in it."""
    try:
        "".encode(name)
    except (LookupError, ValueError):  # an unknown name, one that is not for text, or no name at all
        return False
    return True


def canonical_encoding(name: str) -> str:
    """The one name of an encoding that has several."""
    return codecs.lookup(name).name


def marked_encoding(beginning: bytes) -> str:
    """The encoding that a byte order mark names, other than UTF-8; empty without one."""
    return next((encoding for mark, encoding in MARKS if beginning.startswith(mark)), "")


def wide_encoding(beginning: bytes) -> str:
    """The encoding of text that is mostly ASCII, in two or four bytes each, without a mark: zeros are where no UTF-8 has them."""
    for encoding, width, place in WIDE:
        columns = [beginning[:LOOKED_AT][offset::width] for offset in range(width)]
        text = columns.pop(place)
        if len(text) > 1 and 0 not in text and all(2 * column.count(0) >= len(column) for column in columns):
            return encoding
    return ""


def likely_encoding(text: bytes) -> str:
    """A guess for text that is not UTF-8: by its byte order mark, or else one of those with a byte for each character."""
    if marked := marked_encoding(text):
        return marked
    try:
        text.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


class AsUtf8(io.RawIOBase):
    """A file in another encoding, as bytes of UTF-8. Bytes that the encoding lacks stay as they are, where it can go on after them.

    With `any_line_end` a CR or a CRLF becomes LF.
    """

    def __init__(self, file: IO[bytes], encoding: str, path: str, any_line_end: bool = False) -> None:
        self._file = file
        decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True) if any_line_end else decoder
        self._encoding = encoding
        self._path = path
        self._ready = memoryview(b"")
        self._is_at_end = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, and tell how much of it; 0 at the end."""
        while not self._ready and not self._is_at_end:
            data = self._file.read(READ_BYTES)
            self._is_at_end = not data
            try:
                self._ready = memoryview(self._decoder.decode(data, not data).encode(UTF8, "surrogateescape"))
            except UnicodeError as error:
                raise UserError(f"{self._path} is not in {self._encoding}: {first_line(error)}. Name another --encoding") from error
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
