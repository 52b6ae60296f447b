"""Rows out of local files, format by format; a file that is not what its name says is named."""

import glob
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from errors import BAD_FLAGS, UserError
from text import normalise_line_ends

ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".txt")
TEXT_SEPARATOR = b"<|endoftext|>"  # alone on a line of a .txt file: the next document begins
BATCH_ROWS = 100  # rows read at a time: few, because each may be long


def find_files(inputs: tuple[str, ...]) -> list[Path]:
    """The files that `--input` names: in the order given, those of a folder or a glob sorted by name."""
    found: list[Path] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(ENDINGS))
        elif path.is_file():
            files = [path]
        else:
            files = sorted(file for file in map(Path, glob.glob(given, recursive=True)) if file.is_file())
        if not files:
            raise UserError(f"--input {given}: no such file, and no {', '.join(ENDINGS)} file in it", BAD_FLAGS)
        found += files
    for file in found:
        if not file.name.endswith(ENDINGS):
            raise UserError(f"--input {file}: cannot tell what this is; known are {', '.join(ENDINGS)}", BAD_FLAGS)
    return found


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
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {first_line(error)}") from error


def batch_rows(batch: Any, columns: list[str], source: str) -> list[dict[str, bytes | None]]:
    """The rows of an Arrow batch or table, as the bytes of their text."""
    import pyarrow

    texts = []
    for name in columns:
        column = batch.column(name)
        try:
            texts.append(column.cast(pyarrow.large_binary()).to_pylist())
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
            raise UserError(f"{source}: the field {name!r} holds {column.type}, not text") from error
    return [dict(zip(columns, row, strict=True)) for row in zip(*texts, strict=True)]


def read_json(path: str) -> Iterator[dict[str, Any]]:
    """The objects of a .json file or of the lines of a .jsonl file, compressed or not."""
    with open_bytes(path) as file:
        try:
            if path.endswith(".json") and _first_byte(file) == b"[":
                yield from _objects(path, json.loads(file.read()))
            else:
                yield from _lines(path, file)
        except ValueError as error:
            raise UserError(f"{path} is not JSON: {first_line(error)}") from error
        except (OSError, EOFError) as error:
            raise UserError(f"{path} cannot be read to its end: {first_line(error)}") from error


def read_text(path: str, limit: int) -> Iterator[tuple[bytes, bool]]:
    """The documents of a .txt file, with whether each goes on with the one before.

    The file is never held whole: a document longer than `limit` comes in parts. A document's last line break is not of it.
    """
    with open_bytes(path) as file:
        document, continues = bytearray(), False
        while line := file.readline(limit):
            if line.strip() == TEXT_SEPARATOR:
                yield from _whole(document, continues)
                document, continues = bytearray(), False
                continue
            document += normalise_line_ends(line)
            while len(document) > limit:
                end = cutting_place(document, limit)
                yield bytes(document[:end]), continues
                document, continues = document[end:], True
        yield from _whole(document, continues)


def cutting_place(text: bytes | bytearray, limit: int) -> int:
    """The end of the longest part of at most `limit` bytes that ends after a line break, else after a space, else after a character."""
    for separator in (b"\n", b" "):
        end = text.rfind(separator, 0, limit) + 1
        if end:
            return end
    end = limit
    while end > limit - 4 and text[end] & 0b1100_0000 == 0b1000_0000:  # inside a character of UTF-8
        end -= 1
    return end


def require_fields(wanted: list[str], there: list[str], source: str) -> None:
    """Refuse a source that lacks a field, with the fields it has."""
    for name in wanted:
        if name not in there:
            raise UserError(f"{source} has no field {name!r}; it has {', '.join(there)}. Name one with --field")


def open_bytes(path: str) -> IO[bytes]:
    """A file's bytes, uncompressed by its ending."""
    import pyarrow

    try:
        stream = pyarrow.input_stream(path, compression={".gz": "gzip", ".zst": "zstd"}.get(Path(path).suffix))
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {first_line(error)}") from error
    return io.BufferedReader(stream, 1 << 20)


def first_line(error: BaseException) -> str:
    """What a library says of an error, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _first_byte(file: IO[bytes]) -> bytes:
    assert isinstance(file, io.BufferedReader)
    return file.peek(1 << 16).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]


def _objects(path: str, rows: Any) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path}, entry {number}: a JSON {type(row).__name__} where an object is expected")
        yield row


def _lines(path: str, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except UnicodeDecodeError:
            row = json.loads(line.decode("utf-8", "surrogateescape"))  # the reader of the row finds it is no valid text, and counts it
        except ValueError as error:
            raise UserError(f"{path}, line {number} is not JSON: {first_line(error)}") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: a JSON {type(row).__name__} where an object is expected")
        yield row


def _whole(document: bytearray, continues: bool) -> Iterator[tuple[bytes, bool]]:
    text = bytes(document).removesuffix(b"\n")
    if text or not continues:
        yield text, continues
