"""Parquet files, local or at a URL: their rows, ranges of rows, and what their footers say."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from formats.remote_files import is_remote, open_remote, reading
from formats.rows import require_fields
from system.errors import UserError, first_line

BATCH_ROWS = 100  # rows read at a time; few, since each may be long


@contextmanager
def parquet_file(path: str, pre_buffer: bool = False) -> Iterator[Any]:
    """An open file. What goes wrong while it is read ends the run with its name, or is worth a retry if it is at a URL.

    Pages that have a checksum are compared with it.
    """
    import pyarrow  # comes with datasets, and takes a while
    import pyarrow.parquet

    try:
        with reading(path, " as Parquet"):
            remote = open_remote(path) if is_remote(path) else None
            buffered = pre_buffer or remote is not None
            with pyarrow.parquet.ParquetFile(remote or path, pre_buffer=buffered, page_checksum_verification=True) as file:
                yield file
    except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {first_line(error)}") from error


def read_column(path: str, column: str) -> Iterator[bytes | None]:
    """A column, as bytes, which may be invalid UTF-8."""
    with parquet_file(path) as file:
        require_fields([column], file.schema_arrow.names, path)
        for batch in file.iter_batches(BATCH_ROWS, columns=[column]):
            yield from column_bytes(batch, column, path)


def read_range(path: str, column: str, first: int, last: int) -> Iterator[bytes | None]:
    """The rows `first` to `last` - 1 of a column, as bytes. Row groups without any of them are not read."""
    with parquet_file(path) as file:
        groups, start = [], 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if start < last and end > first:
                groups.append((group, start))
            start = end
        row = groups[0][1] if groups else 0
        for batch in file.iter_batches(BATCH_ROWS, [group for group, _ in groups], [column], use_threads=False):
            yield from column_bytes(batch.slice(max(0, first - row), last - max(first, row)), column, path)
            row += batch.num_rows
            if row >= last:
                return


def row_groups(path: str, column: str) -> list[tuple[int, int]]:
    """The number of rows of each row group, and the bytes of a column there before compression."""
    with parquet_file(path, pre_buffer=True) as file:
        require_fields([column], file.schema_arrow.names, path)
        # pyarrow ends the process when it is asked for a damaged description of a column. Before it reads a buffered column, it checks
        # those of all row groups and raises an error. (What comes from a server was damaged there or not at all: one request less.)
        if not is_remote(path):
            next(file.iter_batches(1, columns=[column]), None)
        names = [file.schema.column(index).path for index in range(len(file.schema))]
        place = names.index(column) if column in names else None
        groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
        return [(group.num_rows, 0 if place is None else group.column(place).total_uncompressed_size) for group in groups]


def read_rows(path: str, choose: Callable[[list[str]], list[str]]) -> Iterator[dict[str, Any] | None]:
    """The rows with the chosen fields; None for a row with invalid UTF-8."""
    with parquet_file(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=choose(file.schema_arrow.names)):
            yield from table_rows(batch, path)


def table_rows(table: Any, source: str) -> list[dict[str, Any] | None]:
    """The rows of an Arrow batch or table as Python values; None for a row with invalid UTF-8."""
    try:
        try:
            return list(table.to_pylist())
        except UnicodeDecodeError:
            return [_plain_row(table.slice(row, 1)) for row in range(table.num_rows)]
    except OverflowError as error:
        types = {name: column.type for name, column in zip(table.schema.names, table.columns, strict=True)}
        fields = " or ".join(f"{name!r} ({kind})" for name, kind in types.items() if str(kind).startswith(("date", "time", "duration")))
        raise UserError(
            f"{source}: {fields or 'a field'} holds a value beyond what Python can hold, such as a year after 9999 ({first_line(error)}). "
            "Correct it, or write the file without that field"
        ) from error


def _plain_row(table: Any) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = table.to_pylist()[0]
    except UnicodeDecodeError:
        return None
    return row


def column_bytes(batch: Any, name: str, source: str) -> list[bytes | None]:
    """A column of an Arrow batch or table, as bytes."""
    import pyarrow

    column = batch.column(batch.schema.names.index(name))
    try:
        texts: list[bytes | None] = column.cast(pyarrow.large_binary()).to_pylist()
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise UserError(f"{source}: the field {name!r} holds {column.type}, not text") from error
    return texts
