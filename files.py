"""Rows out of local files, format by format; a file that is not what its name says is named."""

import codecs
import glob
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from errors import BAD_FLAGS, UserError, first_line

ROW_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".json")  # what holds rows with named fields
ENDINGS = (*ROW_ENDINGS, ".txt")
TEXT_SEPARATOR = b"<|endoftext|>"  # alone on a line of a .txt file: the next document begins
JSON_FORMS = "Expected is an object on each line or, in a .json file, one list of objects"
WHOLE_BYTES = 64 << 20  # a larger file is known by parts of it: reading a terabyte twice helps nobody
BATCH_ROWS = 100  # rows read at a time: few, because each may be long


def find_files(inputs: tuple[str, ...], endings: tuple[str, ...] = ENDINGS) -> list[Path]:
    """The files that `--input` names: in the order given, those of a folder or a glob sorted by name."""
    found: list[Path] = []
    for given in inputs:
        path = Path(given)
        try:
            if path.is_dir():
                files = sorted(file for file in path.rglob("*") if file.is_file() and file.name.lower().endswith(endings))
            elif path.is_file():
                files = [path]
            else:
                files = sorted(file for file in map(Path, glob.glob(given, recursive=True)) if file.is_file())
        except OSError as error:  # a folder on the way may not be entered, a name is too long
            raise UserError(f"--input {given[:200]}: {error.strerror}", BAD_FLAGS) from error
        if not files:
            raise UserError(f"--input {given}: no such file, or nothing in it that ends in {', '.join(endings)}", BAD_FLAGS)
        found += files
    for file in found:
        if not file.name.lower().endswith(endings):
            raise UserError(f"--input {file}: not to be read here; what can be read ends in {', '.join(endings)}", BAD_FLAGS)
    return found


def fingerprint(file: Path) -> str:
    """What a file counts as when a run goes on: its name, wherever it lies, its size, and a hash of it; of a large one, of its parts."""
    size = file.stat().st_size
    digest = hashlib.sha256()
    with file.open("rb") as data:
        if size <= WHOLE_BYTES:
            digest.update(data.read())
        else:
            for start in range(0, size, max(size // 16, 1)):
                data.seek(start)
                digest.update(data.read(1 << 16))
            data.seek(-(1 << 16), 2)
            digest.update(data.read())
    return f"{file.name} ({size:,} bytes, {digest.hexdigest()[:12]})"


def read_parquet(path: str, columns: list[str]) -> Iterator[dict[str, bytes | None]]:
    """The named columns of a Parquet file, as the bytes of their text, which may be no valid UTF-8."""
    import pyarrow  # comes with datasets; a worker process does not need it
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            require_fields(columns, names, path)
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                yield from batch_rows(batch, columns, path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {first_line(error)}") from error


def read_parquet_rows(path: str, choose: Callable[[list[str]], list[str]]) -> Iterator[dict[str, Any] | None]:
    """The rows of a Parquet file with the fields chosen of those there are; None for a row whose text is no valid UTF-8."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=choose(file.schema_arrow.names)):
                yield from table_rows(batch)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {first_line(error)}") from error


def table_rows(table: Any) -> list[dict[str, Any] | None]:
    """The rows of an Arrow batch or table as Python values; None for a row whose text is no valid UTF-8."""
    try:
        return list(table.to_pylist())
    except UnicodeDecodeError:
        return [_plain_row(table.slice(row, 1)) for row in range(table.num_rows)]


def batch_rows(batch: Any, columns: list[str], source: str) -> list[dict[str, bytes | None]]:
    """The rows of an Arrow batch or table, as the bytes of their text."""
    import pyarrow

    texts = []
    for name in columns:
        column = batch.column(batch.schema.names.index(name))
        try:
            texts.append(column.cast(pyarrow.large_binary()).to_pylist())
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
            raise UserError(f"{source}: the field {name!r} holds {column.type}, not text") from error
    return [dict(zip(columns, row, strict=True)) for row in zip(*texts, strict=True)]


def read_json(path: str) -> Iterator[dict[str, Any]]:
    """The objects of a .json file or of the lines of a .jsonl file, compressed or not."""
    with open_bytes(path) as file:
        if path.lower().endswith(".json") and file.peek(1 << 16).lstrip()[:1] == b"[":
            for number, row in enumerate(_parse(b"".join(reads(path, file.read)), path, 1), start=1):
                yield _require_object(row, f"{path}, entry {number}")
        else:
            for number, line in enumerate(reads(path, file.readline), start=1):
                if line := line.rstrip():
                    yield _require_object(_parse(line, path, number), f"{path}, line {number}")


def read_text(path: str, limit: int) -> Iterator[tuple[bytes, bool]]:
    """The documents of a .txt file, with whether each goes on with the one before.

    The file is never held whole: a document longer than `limit` comes in parts. A document's last line break is not of it.
    """
    with open_bytes(path) as file:
        document, continues, starts_line = bytearray(), False, True
        for line in reads(path, lambda: file.readline(limit)):  # a long line comes in pieces
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
    """The end of the longest part of at most `limit` bytes that ends after a line break, else after a space, else after a character.

    The part begins at `start`, and the text goes on behind it.
    """
    end = start + limit
    for separator in (b"\n", b" "):
        if (place := text.rfind(separator, start, end)) >= 0:
            return place + 1
    end -= text[end - 1 : end + 1] == b"\r\n"  # a line break stays whole
    while end > start + limit - 4 and text[end] & 0b1100_0000 == 0b1000_0000:  # inside a character of UTF-8
        end -= 1
    return end


def require_fields(wanted: list[str], there: list[str], source: str) -> None:
    """Refuse a source that lacks a field, with the fields it has."""
    for name in wanted:
        if name not in there:
            raise UserError(f"{source} has no field {name!r}; it has {', '.join(there)}. Name one with --field")


def open_bytes(path: str) -> io.BufferedReader:
    """A file's bytes, uncompressed by its ending, without a byte order mark."""
    import pyarrow

    try:
        stream = pyarrow.input_stream(path, compression={".gz": "gzip", ".zst": "zstd"}.get(Path(path).suffix.lower()))
        file = io.BufferedReader(stream, 1 << 20)
        if file.peek(len(codecs.BOM_UTF8)).startswith(codecs.BOM_UTF8):
            file.read(len(codecs.BOM_UTF8))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error
    return file


def _plain_row(table: Any) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = table.to_pylist()[0]
    except UnicodeDecodeError:
        return None
    return row


def reads(path: str, read: Callable[[], bytes]) -> Iterator[bytes]:
    """What a reading function of a file gives until the file's end."""
    try:
        yield from iter(read, b"")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error


def _parse(data: bytes, path: str, line: int) -> Any:
    """The value of JSON text that begins on this line of a file."""
    try:
        # A byte that is no UTF-8 stays in its string: the reader of the row finds that it is no valid text, and counts it.
        return json.loads(data.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {line + error.lineno - 1}, column {error.colno} is not JSON: {error.msg}. {JSON_FORMS}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise UserError(f"{path}, line {line}: {first_line(error)}") from error


def _require_object(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"{place}: a JSON {type(row).__name__} where an object is expected")
    return row


def _whole(document: bytearray, continues: bool) -> Iterator[tuple[bytes, bool]]:
    text = bytes(document.removesuffix(b"\n"))
    if len(text) < len(document):
        text = text.removesuffix(b"\r")
    if text or not continues:
        yield text, continues
