"""A file of rows in, a file of results out, row by row and in order, so that a run that is killed goes on where it stopped.

While a file is being made, its results lie as lines in `<output>.unfinished`, below a first line that says what the run was asked for.
"""

import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from disk import claim_file, replacing
from errors import BAD_FLAGS, UserError, first_line
from files import ROW_ENDINGS, open_bytes, read_parquet_rows, reads
from flags import differences
from text import decode, normalise_line_ends

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
READ_ENDINGS = (*ROW_ENDINGS, ".txt")

Row = dict[str, Any]


def read_rows(path: str, wanted: Callable[[list[str]], list[str]]) -> Iterator[Row | str]:
    """The rows of a file, or what is wrong with one; a line of a .txt file is a row with a response."""
    kind = path.lower()
    if not kind.endswith(READ_ENDINGS):
        raise UserError(f"{path}: not to be read here; what can be read ends in {', '.join(READ_ENDINGS)}", BAD_FLAGS)
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file", BAD_FLAGS)
    if kind.endswith(".parquet"):
        yield from ("not valid UTF-8" if row is None else row for row in read_parquet_rows(path, wanted))
    elif kind.endswith(".json"):
        yield from _read_list(path)
    else:
        with open_bytes(path) as file:
            for line in reads(path, file.readline):
                text = decode(normalise_line_ends(line).rstrip(b"\n"))
                if text is None:
                    yield "not valid UTF-8"
                elif text.strip():
                    yield {"response": text} if kind.endswith(".txt") else _parse(text)


def _read_list(path: str) -> Iterator[Row | str]:
    with open_bytes(path) as file:
        try:
            rows = json.loads(b"".join(reads(path, file.read)))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON: {first_line(error)}") from error
    if not isinstance(rows, list):
        raise UserError(f"{path}: one list of objects is expected")
    yield from (row if isinstance(row, dict) else f"a JSON {type(row).__name__} where an object is expected" for row in rows)


def _parse(line: str) -> Row | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return row if isinstance(row, dict) else f"a JSON {type(row).__name__} where an object is expected"


class Results:
    """The results of a run, as many as there are."""

    def __init__(self, path: Path, settings: Row) -> None:
        if not path.name.lower().endswith(ENDINGS):
            raise UserError(f"--output {path}: what can be written ends in {', '.join(ENDINGS)}", BAD_FLAGS)
        self.path = path
        self.settings = settings
        self.part = path.with_name(f"{path.name}.unfinished")
        self.done = self.errors = 0
        if path.is_file():
            self.part.unlink(missing_ok=True)  # of a run that was killed after its last step but one
            raise UserError(f"--output {path} is there already. Give another, or delete it", BAD_FLAGS)

    def write(self, rows: Callable[[int], Iterable[Row]]) -> None:
        """Take up the rows from number .. on, and turn them into the file when the last is there."""
        with claim_file(self.part, "--output") as file:
            self._take_up(file)
            try:
                for row in rows(self.done):
                    file.write(_line(row))
                    file.flush()
                    self.done += 1
                    self.errors += "error" in row
            except UserError:
                if not self.done:  # a source that cannot be read leaves nothing behind
                    self.part.unlink()
                raise
            self._finish()
            self.part.unlink()

    def _take_up(self, file: IO[bytes]) -> None:
        """Count what an earlier run left, and cut off what a kill broke off."""
        whole = 0
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            if number == 0:
                self._refuse_others(line)
            else:
                self.done += 1
                self.errors += "error" in json.loads(line)
        file.truncate(whole)
        file.seek(0, 2)
        if not whole:
            file.write(_line(self.settings))
            file.flush()

    def _refuse_others(self, line: bytes) -> None:
        try:
            was = json.loads(line)
            changes = differences(was, json.loads(_line(self.settings)))
        except (ValueError, AttributeError) as error:
            raise UserError(f"{self.part} is not of this program. Delete it, or give another --output", BAD_FLAGS) from error
        if changes:
            raise UserError(f"{self.part} was begun with other settings: {'; '.join(changes)}. Give the same, or delete it", BAD_FLAGS)

    def _finish(self) -> None:
        kind = self.path.suffix.lower()
        with replacing(self.path) as file, self.part.open("rb") as lines:
            next(lines)
            if kind == ".parquet":
                _write_parquet([json.loads(line) for line in lines], file, self.part)
            elif kind == ".gz":
                with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed:
                    packed.writelines(lines)
            elif kind == ".zst":
                import pyarrow

                # The stream closes what is below it, and the file must stay open to be synced: so it gets one of its own.
                with os.fdopen(os.dup(file.fileno()), "wb") as twin, pyarrow.CompressedOutputStream(twin, "zstd") as stream:
                    for line in lines:
                        stream.write(line)
            else:
                file.writelines(lines)


def _write_parquet(rows: list[Row], file: Any, part: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        table = pyarrow.table({name: [row.get(name) for row in rows] for name in names})
    except (pyarrow.ArrowException, OverflowError) as error:
        raise UserError(
            f"the results do not fit into one table ({first_line(error)}). They stay in {part}: below its first line, "
            "which is none of them, it is a .jsonl file"
        ) from error
    pyarrow.parquet.write_table(table, file)


def _line(row: Row) -> bytes:
    return (json.dumps(row, ensure_ascii=False, default=str) + "\n").encode("utf-8", "replace")
