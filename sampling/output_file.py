"""The output file of a job over rows, written row by row and in order, so that a killed run can resume.

Until it is complete, its rows are JSON lines in `<output>.unfinished`, after a first line with the settings of the run.
"""

import gzip
import io
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from formats.tolerant_rows import Row
from system.errors import BAD_FLAGS, UserError, first_line
from system.files import atomic_write, lock_file, naming
from system.json_text import to_json
from system.settings import changed_settings

OUTPUT_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


class OutputFile:
    """The results of a run, and how many rows are done."""

    def __init__(self, path: Path, settings: Row) -> None:
        if not path.name.lower().endswith(OUTPUT_ENDINGS):
            raise UserError(f"--output {path}: cannot be written; supported endings: {', '.join(OUTPUT_ENDINGS)}", BAD_FLAGS)
        self.path = path
        self.settings = settings
        self.unfinished = path.with_name(f"{path.name}.unfinished")
        self.done = self.errors = 0
        if self.path.is_file() and not self.unfinished.is_file():
            raise self._already_there()

    def write(self, rows: Callable[[int], Iterable[Row]]) -> None:
        """Write `rows(done)`, the rows after those that an earlier run has done; the file appears when the last one is written."""
        with naming(self.unfinished), lock_file(self.unfinished, "--output") as file:
            if self.path.is_file() and not os.fstat(file.fileno()).st_size:  # another run has ended since then
                self.unfinished.unlink()
                raise self._already_there()
            self._resume(file)
            if not self.path.is_file():  # an earlier run may have ended just before it removed the unfinished one
                self._add(rows(self.done), file)
                self._finish()
            self.unfinished.unlink()

    def _add(self, rows: Iterable[Row], file: IO[bytes]) -> None:
        """Write the remaining rows, each at once, and all of them durably at the end."""
        try:
            for row in rows:
                try:
                    line = _line(row)
                except RecursionError:
                    row = {"row": row.get("row"), "error": "nested too deeply"}
                    line = _line(row)
                file.write(line)
                file.flush()
                self.done += 1
                self.errors += "error" in row
        except UserError:
            if not self.done:  # an input file that cannot be read leaves no output behind
                self.unfinished.unlink()
            raise
        os.fsync(file.fileno())

    def _already_there(self) -> UserError:
        return UserError(f"--output {self.path} already exists. Use another --output, or delete it", BAD_FLAGS)

    def _resume(self, file: IO[bytes]) -> None:
        """Count the rows of an earlier run, which must be all up to the last, and remove a line that was cut off by a kill."""
        complete = 0  # bytes
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):
                break
            complete += len(line)
            if number == 0:
                self._check_settings(line)
            else:
                self.done += 1
                self.errors += self._is_error(line, self.done)
        file.truncate(complete)
        file.seek(0, 2)
        if not complete:
            file.write(_line(self.settings))
            file.flush()

    def _check_settings(self, line: bytes) -> None:
        try:
            earlier = json.loads(line)
            changes = changed_settings(earlier, dict.fromkeys(earlier) | json.loads(_line(self.settings)))
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise UserError(f"{self.unfinished} was not written by this program. Delete it, or use another --output", BAD_FLAGS) from error
        if changes:
            raise UserError(
                f"{self.unfinished} was started with other settings: {'; '.join(changes)}. Use the same, or delete it", BAD_FLAGS
            )

    def _is_error(self, line: bytes, number: int) -> bool:
        """Whether an earlier run could not use this row; a line that is not of this row was damaged, or another is missing."""
        place, way_out = f"{self.unfinished}, line {number + 1}", "Delete the file, or use another --output"
        try:
            row = json.loads(line.decode())  # from bytes, json.loads takes surrogates for UTF-8
            found = row.get("row")
        except (ValueError, AttributeError, RecursionError) as error:
            raise UserError(f"{place} is damaged. {way_out}") from error
        if type(found) is not int or found != number:
            raise UserError(f"{place} is not of row {number}: it is damaged, or lines are missing. {way_out}")
        return "error" in row

    def _finish(self) -> None:
        kind = self.path.suffix.lower()
        with atomic_write(self.path) as file, self.unfinished.open("rb") as lines:
            next(lines)
            if kind == ".parquet":
                _write_parquet([json.loads(line) for line in lines], file, self.unfinished)
            elif kind == ".gz":
                with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as compressed:
                    compressed.writelines(lines)
            elif kind == ".zst":
                import pyarrow

                # The stream closes its file, which must stay open to be synced: so it gets a duplicate.
                with os.fdopen(os.dup(file.fileno()), "wb") as duplicate, pyarrow.CompressedOutputStream(duplicate, "zstd") as stream:
                    for line in lines:
                        stream.write(line)
            else:
                file.writelines(lines)


def _write_parquet(rows: list[Row], file: Any, unfinished: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        table = pyarrow.table({name: [row.get(name) for row in rows] for name in names})
        pyarrow.parquet.write_table(table.schema.empty_table(), empty := io.BytesIO())
        pyarrow.parquet.read_schema(empty)  # nested too deeply, it can be written but not read
    except (pyarrow.ArrowException, OSError, OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise UserError(
            f"the results do not fit into one table ({first_line(error)}). They stay in {unfinished}: "
            "without its first line, which holds the settings, it is a .jsonl file"
        ) from error
    pyarrow.parquet.write_table(table, file)


def _line(row: Row) -> bytes:
    return (to_json(row) + "\n").encode("utf-8", "replace")
