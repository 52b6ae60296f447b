"""Rows of CSV and TSV files: a header, and cells that may hold quotes and line breaks."""

import csv
from collections.abc import Callable, Iterator
from itertools import count

from formats.rows import MAX_LINE_BYTES, TOO_LONG, Row, open_bytes, read_lines
from formats.utf8 import Utf8Rows
from system.encodings import UTF8
from system.errors import UserError

# A quote that is never closed makes the rest of a file one cell, and Python's reader keeps 4 bytes for each of its characters.
MAX_ROW_BYTES = 64 << 20
LINE_BYTES = 64  # of memory that each line of a row takes beside its text

TABLE_ENDINGS = (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".tsv.zst")


def is_table(path: str) -> bool:
    """Whether a file is read as CSV or TSV."""
    return path.lower().endswith(TABLE_ENDINGS)


def parse_table(
    path: str, check_header: Callable[[list[str]], object], encoding: str = UTF8, checked: Utf8Rows | None = None
) -> Iterator[Row | UserError]:
    """The rows of a table by the names in its header; in the place of a bad row the error that names its first line.

    The bytes of a cell that are not UTF-8 stay in it: whoever uses the row finds them.
    """
    checked = checked or Utf8Rows(path)
    csv.field_size_limit(MAX_LINE_BYTES)
    with open_bytes(path, encoding) as file:
        lines = _Lines(read_lines(path, file))
        reader = csv.reader(lines, "excel-tab" if ".tsv" in path.lower()[-8:] else "excel", strict=True)
        header: list[str] = []
        while True:
            lines.begin_row()
            try:
                cells = next(reader, None)
            except csv.Error as error:
                bad = UserError(f"{path}, line {lines.first}: {error}")
                if not header:
                    raise bad from error
                yield bad
                continue
            if cells is None:
                break
            if not cells:  # an empty line
                continue
            if not header:
                header = cells
                _require_different(header, path)
                check_header(header)
                continue
            checked.add(lines.row)
            if len(cells) == len(header):
                yield dict(zip(header, cells, strict=True))
            else:
                yield UserError(f"{path}, line {lines.first}: {len(cells)} cells, but the header has {len(header)}")
    checked.finish()


class _Lines:
    """The lines of a file for a reader of tables, which takes as many as a row has."""

    def __init__(self, lines: Iterator[bytes | None]) -> None:
        self._lines = zip(count(1), lines, strict=False)
        self.begin_row()

    def begin_row(self) -> None:
        self.first = 0  # the number of the row's first line
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def row(self) -> bytes:
        return b"".join(self._parts)

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        self.first = self.first or number
        if line is None:
            raise csv.Error(TOO_LONG)
        self._size += len(line) + LINE_BYTES
        if self._size > MAX_ROW_BYTES:
            raise csv.Error(f"a row longer than {MAX_ROW_BYTES >> 20} MiB; perhaps a quote in it is never closed")
        self._parts.append(line)
        return line.decode(UTF8, "surrogateescape")


def _require_different(header: list[str], path: str) -> None:
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{path} has two columns named {name!r}. Rename one of them in its first line")
