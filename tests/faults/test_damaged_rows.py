"""Damaged files of users: rows of the declared types, or one line that says what is wrong. What has checksums is never read differently."""

import gzip
import zlib
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from formats.parquet_files import row_groups
from tests.faults.in_children import Start, counts, refused, try_each
from tests.faults.json_mutants import json_mutants
from tests.faults.mutants import Mutant, Places, byte_mutants, ends, in_file, parquet_places, text_places
from tests.faults.user_files import FILES, LINES, ROWS, Reader, check_item, readers

QUICK = 12
KINDS = {".txt": "text", ".gz": "gzip", ".zst": "Zstandard", ".parquet": "Parquet", ".csv": "CSV and TSV", ".tsv": "CSV and TSV"}
JSON = "JSON and JSON lines"


def read_all(read: Reader) -> None:
    for item in read():
        check_item(item)


def places_of(path: Path, content: bytes) -> Places:
    if path.suffix == ".parquet":
        return parquet_places(path)
    return ends(content) if path.suffix in (".gz", ".zst") else text_places(content)


def unpacked(content: bytes) -> bytes | None:
    """What another program makes of a .gz file; None if it refuses the file."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return None


@pytest.mark.parametrize("name", FILES)
@counts(QUICK)
def test_damaged_files_of_users(trials: Start, tmp_path: Path, name: str, count: int) -> None:
    path, (encoding, make) = tmp_path / name, FILES[name]
    content = make()
    path.write_bytes(content)
    first, *others = readers(str(path), encoding)

    assert any(not refused(partial(read_all, read)) for read in others)
    turns = cycle(others)

    def read(damaged: bytes) -> bool:
        path.write_bytes(damaged)
        is_refused = refused(partial(read_all, first))
        is_refused_again = refused(partial(read_all, next(turns)))
        if path.suffix == ".gz":
            inner = unpacked(damaged)
            assert inner is not None or is_refused, "its checksum does not match"
            return is_refused
        if path.suffix == ".zst" and damaged and content.startswith(damaged):
            assert is_refused, "it is cut off"
        return is_refused or is_refused_again

    kind = trials(f"damage in a user's file: {KINDS.get(path.suffix, JSON)}")
    mutants = byte_mutants(content, places_of(path, content), count)
    if name == "a.json":
        mutants = chain(islice(mutants, count // 2), json_mutants(ROWS, count // 2))
    elif name == "a.jsonl":
        mutants = chain(islice(mutants, count // 2), in_file(json_mutants(ROWS[0], count // 2), [], [LINES]))
    try_each(kind, mutants, read)


@pytest.mark.parametrize("step", [12, pytest.param(1, marks=pytest.mark.faults)])
def test_each_byte_of_a_footer(trials: Start, tmp_path: Path, step: int) -> None:
    """pyarrow ends the process when it is asked for some damaged descriptions of columns."""
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2, 3], "text": ["a", None, "b"]}), path, row_group_size=2)
    content = path.read_bytes()
    assert row_groups(str(path), "text")

    def read(damaged: bytes) -> bool:
        path.write_bytes(damaged)
        return refused(lambda: row_groups(str(path), "text"))

    [(start, end)] = parquet_places(path)["footer"]
    mutants = (Mutant(f"byte {at}", content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]) for at in range(start, end, step))
    try_each(trials("damage in a user's file: Parquet"), mutants, read)
