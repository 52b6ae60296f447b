"""Rows of local files where a bad row does not end the run: it comes as a text that says what is wrong with it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from formats.input_files import DOCUMENT_ENDINGS
from formats.parquet_files import read_rows
from formats.rows import TEXT_SEPARATOR, TOO_LONG, open_bytes, read_lines, read_until_end
from formats.rows import Row as Row
from formats.tables import is_table, parse_table
from formats.utf8 import Utf8Rows, decode_utf8, is_unicode, normalize_line_endings
from system.encodings import UTF8, likely_encoding
from system.errors import BAD_FLAGS, UserError, first_line

READ_ENDINGS = DOCUMENT_ENDINGS


def read_rows_or_errors(
    path: str, wanted: Callable[[list[str]], list[str]], encoding: str = UTF8, line_field: str = "response"
) -> Iterator[Row | str]:
    """Each row of a file, or what is wrong with it. A line of a .txt file is a row with one field, unless it separates documents."""
    kind = path.lower()
    if not kind.endswith(READ_ENDINGS):
        raise UserError(f"{path}: cannot be read; supported endings: {', '.join(READ_ENDINGS)}", BAD_FLAGS)
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file", BAD_FLAGS)
    if kind.endswith(".parquet"):
        yield from ("not valid UTF-8" if row is None else row for row in read_rows(path, wanted))
    elif kind.endswith(".json"):
        yield from _read_list(path, encoding)
    elif is_table(path):
        for row in parse_table(path, wanted, encoding, Utf8Rows(path, refuse=False)):
            if isinstance(row, UserError):
                yield f"not a row of the table: {str(row).removeprefix(f'{path}, ')}"
            else:
                yield row if is_unicode("".join(row.values())) else _not_utf8("".join(row.values()).encode(UTF8, "surrogateescape"))
    else:
        with open_bytes(path, encoding) as file:
            for line in read_lines(path, file):
                if line is None:
                    yield TOO_LONG
                    continue
                text = decode_utf8(normalize_line_endings(line).rstrip(b"\n"))
                if text is None:
                    yield _not_utf8(line)
                elif text.strip() and not (kind.endswith(".txt") and text.strip() == TEXT_SEPARATOR.decode()):
                    yield {line_field: text} if kind.endswith(".txt") else _parse(text)


def _not_utf8(row: bytes) -> str:
    return f"not valid UTF-8: if the file is in another encoding, name it, perhaps --encoding {likely_encoding(row)}"


def _read_list(path: str, encoding: str) -> Iterator[Row | str]:
    with open_bytes(path, encoding) as file:
        data = b"".join(read_until_end(path, file.read))
    try:
        rows = json.loads(data)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is {_not_utf8(data)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {first_line(error)}") from error
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected one list of objects")
    yield from (row if isinstance(row, dict) else f"expected an object, found a JSON {type(row).__name__}" for row in rows)


def _parse(line: str) -> Row | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return row if isinstance(row, dict) else f"expected an object, found a JSON {type(row).__name__}"
