"""Damaged files of users: rows of the declared types, or one line that says what is wrong. What has checksums is never read differently."""

import gzip
import zlib
from functools import partial
from itertools import chain, cycle, islice, pairwise
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from formats.parquet_files import row_groups
from tests.faults.in_children import Start, counts, refused, try_each
from tests.faults.json_mutants import json_mutants
from tests.faults.mutants import Mutant, Places, byte_mutants, ends, in_file, parquet_places, text_places
from tests.faults.trials import Outcome
from tests.faults.user_files import FILES, LINES, ROWS, Reader, check_item, readers

QUICK = 12
KINDS = {".txt": "text", ".gz": "gzip", ".zst": "Zstandard", ".parquet": "Parquet", ".csv": "CSV and TSV", ".tsv": "CSV and TSV"}
JSON = "JSON and JSON lines"


def rows_of(read: Reader) -> list[str] | None:
    """What a reader makes of a file, in a form that can be compared; None if it refuses the file."""
    found = []

    def read_all() -> None:
        for item in read():
            check_item(item)
            found.append(repr(item))

    return None if refused(read_all) else found


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

    sound = [rows_of(read) for read in others]
    assert any(rows is not None for rows in sound)
    sound_first = rows_of(first)
    turns = cycle(range(len(others)))
    plain = tmp_path / "unpacked" / name.removesuffix(".gz")
    plain.parent.mkdir()

    def read(damaged: bytes) -> Outcome:
        path.write_bytes(damaged)
        found, turn = rows_of(first), next(turns)
        again = rows_of(others[turn])
        if path.suffix == ".gz":
            inner = unpacked(damaged)
            assert inner is not None or found is None, "its checksum does not match"
            if inner is not None and found is not None:
                plain.write_bytes(inner)
                assert found == rows_of(readers(str(plain), encoding)[0]), "other rows than in what is packed"
        if path.suffix == ".zst" and damaged and content.startswith(damaged):
            assert found is None, "it is cut off"
        if found is None or again is None:
            return Outcome.REFUSED
        return Outcome.RIGHT if found == sound_first and again == sound[turn] else Outcome.CHANGED

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
    sound = rows_of(groups := partial(row_groups, str(path), "text"))
    assert sound

    def read(damaged: bytes) -> Outcome:
        path.write_bytes(damaged)
        if (found := rows_of(groups)) is None:
            return Outcome.REFUSED
        return Outcome.RIGHT if found == sound else Outcome.CHANGED

    [(start, end)] = parquet_places(path)["footer"]
    mutants = (Mutant(f"byte {at}", flipped(content, at * 8)) for at in range(start, end, step))
    try_each(trials("damage in a user's file: Parquet"), mutants, read)


def contents_of_pages(path: Path, content: bytes) -> list[tuple[int, int]]:
    """What the checksums of a file with one page for each column are of: not the headers of the pages, and not the footer."""
    found = []
    group = pyarrow.parquet.read_metadata(path).row_group(0)
    for column in map(group.column, range(group.num_columns)):
        end = column.total_compressed_size + (column.dictionary_page_offset or column.data_page_offset)
        bounds = [start for start in (column.dictionary_page_offset, column.data_page_offset) if start is not None] + [end]
        found += [(end - page_size(content, start), end) for start, end in pairwise(bounds)]
    return found


def varint(content: bytes, place: int) -> tuple[int, int]:
    """A number of any size, and the place behind it."""
    number = shift = 0
    while content[place] & 128:
        number, shift, place = number | (content[place] & 127) << shift, shift + 7, place + 1
    return number | content[place] << shift, place + 1


def page_size(content: bytes, place: int) -> int:
    """The third number of the header there: the bytes of the page as it is in the file."""
    for _ in range(3):
        assert content[place] == 0x15, "not an integer of Thrift"
        number, place = varint(content, place + 1)
    return number >> 1


@pytest.mark.parametrize("step", [100, pytest.param(1, marks=pytest.mark.faults)])
def test_each_bit_of_pages_with_checksums(trials: Start, tmp_path: Path, step: int) -> None:
    """All rows are refused, and a reader of some columns gives what is in the sound file or refuses it too."""
    path, (encoding, make) = tmp_path / "checksums.parquet", FILES["checksums.parquet"]
    content = make()
    path.write_bytes(content)
    first, *others = readers(str(path), encoding)
    sound = [rows_of(read) for read in others]
    bits = [at * 8 + bit for start, end in contents_of_pages(path, content) for at in range(start, end) for bit in range(8)]
    turns = cycle(range(len(others)))

    def read(damaged: bytes) -> Outcome:
        path.write_bytes(damaged)
        assert rows_of(first) is None, "its checksum does not match"
        turn = next(turns)
        assert rows_of(others[turn]) in (None, sound[turn]), f"reader {turn} gives other rows"
        return Outcome.REFUSED

    mutants = (Mutant(f"bit {bit}", flipped(content, bit)) for bit in bits[::step])
    try_each(trials("damage in a user's file: Parquet pages with checksums"), mutants, read)


def flipped(content: bytes, bit: int) -> bytes:
    """With one other bit."""
    at = bit // 8
    return content[:at] + bytes([content[at] ^ 1 << bit % 8]) + content[at + 1 :]
