"""Jobs over the rows of a file, resumable row by row: what they share, whatever they do with a row."""

import itertools
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from formats.checkpoint import Checkpoint
from formats.input_files import fingerprint
from formats.tolerant_rows import Row, read_rows_or_errors
from model import GPT
from sampling.output_file import OutputFile
from system.amounts import amount
from system.encodings import UTF8, canonical_encoding
from system.errors import UserError
from system.escapes import tell
from system.signals import Stopped


class Job(NamedTuple):
    """What is done with which rows."""

    source: str  # the file
    wanted: Callable[[list[str]], list[str]]  # the fields to read of a table, which is refused if it has none
    work: Callable[[Iterator[Row | str], int], Iterator[Row]]  # of the rows that remain, and how many are done: a result for each
    settings: Row  # that a resumed run must share
    encoding: str = UTF8  # of the file, if it is a text file
    line_field: str = "response"  # what a line of a .txt file is


def run_file_job(job: Job, checkpoint: Checkpoint, model: GPT, path: str) -> None:
    """Write the result of each row to a file, resuming an earlier run, and fail at the end if rows could not be used."""
    settings: Row = {
        "model": checkpoint.fingerprint,
        "matrices": f"{model.output_matrix.dtype}",
        "source": fingerprint(job.source) if Path(job.source).is_file() else job.source,
    }
    if (encoding := canonical_encoding(job.encoding)) != UTF8:
        settings["encoding"] = encoding
    output = OutputFile(Path(path), settings | job.settings)

    def read() -> Iterator[Row | str]:
        return read_rows_or_errors(job.source, job.wanted, job.encoding, job.line_field)

    def rows(done: int) -> Iterator[Row]:
        if done:
            tell(f"resuming {output.unfinished}: {done:,} rows are done")
        results = job.work(itertools.islice(read(), done, None), done)
        total = sum(1 for _ in read()) if sys.stderr.isatty() else None
        return iter(tqdm(results, initial=done, total=total, unit=" rows", disable=None, dynamic_ncols=True))

    try:
        output.write(rows)
    except KeyboardInterrupt:
        kept = f"{output.done:,} rows are kept in {output.unfinished}. Run the same command again to resume"
        raise Stopped(f"stopped; {kept}", signal.SIGINT) from None
    tell(f"{path}: {amount(output.done, 'row')}" + (f", {output.errors:,} of them with an error" if output.errors else ""))
    if output.errors:
        raise UserError(f"{output.errors:,} of {output.done:,} rows could not be used; their field `error` says why")
