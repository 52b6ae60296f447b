"""Rows of JSON, JSON lines and text, local or at a URL, each or the error that names its place."""

import codecs
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from formats.remote_files import is_remote, open_remote, reading
from formats.utf8 import Utf8Rows, decode_utf8, is_unicode
from system.encodings import UTF8, AsUtf8, canonical_encoding, marked_encoding, wide_encoding
from system.errors import UserError, first_line
from system.escapes import listed

TEXT_SEPARATOR = b"<|endoftext|>"  # alone on a line of a .txt file, it separates documents
JSON_FORMS = "Expected: an object on each line or, in a .json file, one list of objects"
MAX_LINE_BYTES = 256 << 20  # a few megabytes of .gz can hold a line of many gigabytes
TOO_LONG = f"longer than {MAX_LINE_BYTES >> 20} MiB"

Row = dict[str, Any]


def read_json(path: str) -> Iterator[Row]:
    """The objects of a .json file or of the lines of a .jsonl file, compressed or not. The first bad row is raised as an error."""
    for row in parse_json(path):
        if isinstance(row, UserError):
            raise row
        yield row


def parse_json(path: str, encoding: str = UTF8, checked: Utf8Rows | None = None) -> Iterator[Row | UserError]:
    """The objects of a .json file or of the lines of a .jsonl file; in the place of a bad row the error that names it."""
    checked = checked or Utf8Rows(path)
    with open_bytes(path, encoding) as file:
        if path.lower().endswith(".json") and file.peek(1 << 16).lstrip()[:1] == b"[":
            data = b"".join(read_until_end(path, file.read))
            is_valid = decode_utf8(data) is not None
            for number, row in enumerate(_parse(data, path, 1), start=1):
                checked.add(data, is_valid or is_unicode(json.dumps(row, ensure_ascii=False)))
                yield _object_or_error(row, f"{path}, entry {number}")
        else:
            for number, line in enumerate(read_lines(path, file), start=1):
                if line is None:
                    yield UserError(f"{path}, line {number}: {TOO_LONG}")
                elif line := line.rstrip():
                    checked.add(line)
                    try:
                        yield _object_or_error(_parse(line, path, number), f"{path}, line {number}")
                    except UserError as error:
                        yield error
    checked.finish()


def read_text(path: str, limit: int, encoding: str = UTF8) -> Iterator[tuple[bytes, bool]]:
    """The documents of a .txt file, each with whether it continues the one before.

    The file is never in memory as a whole: a document longer than `limit` comes in parts. Its last line break is dropped.
    """
    with open_bytes(path, encoding) as file:
        document, continues, starts_line = bytearray(), False, True
        for line in read_until_end(path, lambda: file.readline(limit)):  # a long line comes in pieces
            if starts_line and line.strip() == TEXT_SEPARATOR:
                yield from _whole(document, continues)
                document, continues = bytearray(), False
                continue
            starts_line = line.endswith(b"\n")
            document += line
            while len(document) > limit:
                end = cutting_place(document, limit)
                yield bytes(document[:end]), continues
                document, continues = document[end:], True
        yield from _whole(document, continues)


def cutting_place(text: bytes | bytearray, limit: int, start: int = 0) -> int:
    """Where to end a part of at most `limit` bytes from `start` on: after a line break, else after a space, else after a character.

    The text must be longer than the part.
    """
    end = start + limit
    for separator in (b"\n", b" "):
        if (place := text.rfind(separator, start, end)) >= 0:
            return place + 1
    end -= text[end - 1 : end + 1] == b"\r\n"  # do not split a line break
    while end > start + limit - 4 and text[end] & 0b1100_0000 == 0b1000_0000:  # do not split a UTF-8 character
        end -= 1
    return end


def require_fields(wanted: list[str], there: list[str], source: str) -> None:
    """Refuse a source that lacks a field, and name the fields it has."""
    for name in wanted:
        if name not in there:
            raise UserError(f"{source} has no field {name!r}; its fields: {listed(there)}. Choose one with --field")


def open_bytes(path: str, encoding: str = UTF8) -> io.BufferedReader:
    """A text file's bytes as UTF-8, decompressed according to its ending, without a byte order mark."""
    import pyarrow

    with reading(path):
        source = open_remote(path) if is_remote(path) else path
        stream = pyarrow.input_stream(source, compression={".gz": "gzip", ".zst": "zstd"}.get(Path(path).suffix.lower()))
        is_utf8 = canonical_encoding(encoding) == UTF8
        file = io.BufferedReader(stream if is_utf8 else AsUtf8(stream, encoding, path), 1 << 20)
        beginning = file.peek(len(codecs.BOM_UTF32_LE))
        if is_utf8 and (marked := marked_encoding(beginning)):
            raise UserError(f"{path} is in {marked.upper()}, as its byte order mark says. Read it with --encoding {marked}")
        if is_utf8 and (wide := wide_encoding(beginning)):
            raise UserError(f"{path} seems to be in {wide.upper()}, without a byte order mark. Read it with --encoding {wide}")
        if beginning.startswith(codecs.BOM_UTF8):
            file.read(len(codecs.BOM_UTF8))
    return file


def read_until_end(path: str, read: Callable[[], bytes]) -> Iterator[bytes]:
    """The results of calling `read` until the end of the file."""
    with reading(path):
        yield from iter(read, b"")


def read_lines(path: str, file: io.BufferedReader) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is too long, which is never in memory as a whole."""
    for line in read_until_end(path, lambda: file.readline(MAX_LINE_BYTES)):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        del line
        while (part := next(read_until_end(path, lambda: file.readline(1 << 20)), b"")) and not part.endswith(b"\n"):
            pass
        yield None


def _parse(data: bytes, path: str, line: int) -> Any:
    """The value of JSON text that begins at this line of a file."""
    try:
        # Invalid bytes stay in the string: whoever uses the row finds them, and counts the row as invalid.
        return json.loads(data.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {line + error.lineno - 1}, column {error.colno} is not JSON: {error.msg}. {JSON_FORMS}") from error
    except (ValueError, RecursionError) as error:  # numbers with thousands of digits, thousands of nested brackets
        raise UserError(f"{path}, line {line}: {first_line(error)}") from error


def _object_or_error(row: Any, place: str) -> Row | UserError:
    return row if isinstance(row, dict) else UserError(f"{place}: expected an object, found a JSON {type(row).__name__}")


def _whole(document: bytearray, continues: bool) -> Iterator[tuple[bytes, bool]]:
    text = bytes(document.removesuffix(b"\n"))
    if len(text) < len(document):
        text = text.removesuffix(b"\r")
    if text or not continues:
        yield text, continues
