"""Rows of CSV and TSV files: a header, and cells that may hold quotes and line breaks."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from itertools import count

from formats.rows import MAX_LINE_BYTES, TOO_LONG, Row, open_bytes, read_lines
from formats.utf8 import Utf8Rows
from system.amounts import amount
from system.encodings import UTF8, AsUtf8
from system.errors import UserError

# A quote that is never closed makes the rest of a file one cell, and Python's reader keeps 4 bytes for each of its characters.
MAX_ROW_BYTES = 64 << 20
LINE_BYTES = 64  # of memory that each line of a row takes beside its text

TABLE_ENDINGS = (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".tsv.zst")
QUOTED = re.compile(rb'"(?:[^"]++|"")*+"?')  # a cell, perhaps without the quote that ends it


class LostLines(UserError):
    """A bad row of several lines: a quote that was not closed has made one cell of what may be many rows."""


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
    with open_bytes(path, encoding) as opened, _with_line_feeds(opened, path) as file:
        dialect = csv.get_dialect("excel-tab" if ".tsv" in path.lower()[-8:] else "excel")
        lines = _Lines(read_lines(path, file), path, dialect.delimiter)
        reader = csv.reader(lines, dialect, strict=True)
        header: list[str] = []
        while True:
            lines.begin_row()
            try:
                cells = next(reader, None)
            except csv.Error as error:
                bad = lines.explain(error)
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
                yield lines.wrong_number(len(cells), len(header))
    checked.finish()


def _with_line_feeds(file: io.BufferedReader, path: str) -> io.BufferedReader:
    """The file; if its lines end in CR alone, as on old Macs, with LF in its place."""
    beginning = file.peek(1)
    if b"\n" in beginning or b"\r" not in beginning[:-1]:
        return file
    return io.BufferedReader(AsUtf8(file, UTF8, path, any_line_end=True), 1 << 20)


class _Lines:
    """The lines of a file for a reader of tables, which takes as many as a row has."""

    def __init__(self, lines: Iterator[bytes | None], path: str, delimiter: str) -> None:
        self._lines = zip(count(1), lines, strict=False)
        self._path = path
        self._delimiter = delimiter.encode()
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

    def explain(self, error: csv.Error) -> UserError:
        """What is wrong with the row that the reader could not read, its likely cause first."""
        message, last = str(error), self.first + len(self._parts) - 1
        opened = self.first + self._breaks_before_the_last_quote()
        if "unexpected end" in message:
            rest = f"the {last - opened + 1:,} lines from here to the end are one cell" if last > opened else "close it"
            text = f"line {opened}: a quote opens here and is never closed; {rest}"
        elif "field larger" in message:
            text = f"line {opened}: a cell is {TOO_LONG}; perhaps a quote opens here and is never closed"
        elif "expected after" in message and last > opened:
            text = (
                f"line {opened}: a quote opens here and ends only on line {last}, in the middle of a cell, "
                f"so these {last - opened + 1:,} lines are one bad row; perhaps it was never closed"
            )
        elif "expected after" in message:
            text = f"line {opened}: text follows a closing quote; a quote inside a quoted cell is written twice"
        elif "new-line" in message:
            text = f"line {self.first}: a carriage return (CR) outside quotes, although the lines end otherwise"
        else:
            text = f"line {self.first}: {message}"
        return (LostLines if last > self.first else UserError)(f"{self._path}, {text}")

    def wrong_number(self, found: int, wanted: int) -> UserError:
        """What is wrong with a row of too few or too many cells; if it has several lines, perhaps a quote in it was never closed."""
        text = f"{self._path}, line {self.first}: {amount(found, 'cell')}, but the header has {wanted}"
        if len(self._parts) == 1:
            return UserError(text)
        return LostLines(f"{text}; the row has {len(self._parts):,} lines: perhaps a quote in it was never closed")

    def _breaks_before_the_last_quote(self) -> int:
        """How many line breaks of the row are before the quoted cell that the reader stopped in."""
        row, place, opened = self.row, 0, 0
        while True:
            if quoted := QUOTED.match(row, place):
                opened, place = place, quoted.end()
                if row[place : place + 1] not in (self._delimiter, b""):  # where the error is, or the end
                    break
            place = row.find(self._delimiter, place) + 1
            if not place:
                break
        return row.count(b"\n", 0, opened)


def _require_different(header: list[str], path: str) -> None:
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{path} has two columns named {name!r}. Rename one of them in its first line")
