"""Rows of local files where a bad row does not end the run: it comes as a text that says what is wrong with it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from formats.input_files import ROW_ENDINGS
from formats.parquet_files import read_rows
from formats.rows import TEXT_SEPARATOR, TOO_LONG, open_bytes, read_lines, read_until_end
from formats.utf8 import decode_utf8, normalize_line_endings
from system.errors import BAD_FLAGS, UserError, first_line

READ_ENDINGS = (*ROW_ENDINGS, ".txt")

Row = dict[str, Any]


def read_rows_or_errors(path: str, wanted: Callable[[list[str]], list[str]]) -> Iterator[Row | str]:
    """Each row of a file, or what is wrong with it. A line of a .txt file is a row with a response, unless it separates documents."""
    kind = path.lower()
    if not kind.endswith(READ_ENDINGS):
        raise UserError(f"{path}: cannot be read; supported endings: {', '.join(READ_ENDINGS)}", BAD_FLAGS)
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file", BAD_FLAGS)
    if kind.endswith(".parquet"):
        yield from ("not valid UTF-8" if row is None else row for row in read_rows(path, wanted))
    elif kind.endswith(".json"):
        yield from _read_list(path)
    else:
        with open_bytes(path) as file:
            for line in read_lines(path, file):
                if line is None:
                    yield TOO_LONG
                    continue
                text = decode_utf8(normalize_line_endings(line).rstrip(b"\n"))
                if text is None:
                    yield "not valid UTF-8"
                elif text.strip() and not (kind.endswith(".txt") and text.strip() == TEXT_SEPARATOR.decode()):
                    yield {"response": text} if kind.endswith(".txt") else _parse(text)


def _read_list(path: str) -> Iterator[Row | str]:
    with open_bytes(path) as file:
        try:
            rows = json.loads(b"".join(read_until_end(path, file.read)))
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
