"""Damaged shards and damaged users' files: read correctly or refused in one line, never with a traceback."""

import datetime
import decimal
import gzip
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from formats.document_reader import DocumentReader
from formats.parquet_files import read_column, read_rows
from formats.rows import read_json, read_text
from formats.shards import SPLITS, Dataset, Split, open_dataset
from formats.token_stream import ID_DTYPE
from formats.tolerant_rows import read_rows_or_errors
from system.errors import UserError
from tests.formats.test_damage import LONG, mutants, refused
from tokens.tokenizer import Tokenizer

QUICK = 100
COUNTS = pytest.mark.parametrize("count", [QUICK, pytest.param(LONG, marks=pytest.mark.long)])

ROWS = [
    {
        "text": 'naïve 日本語 🙂\n\t"quoted" \\ \u0001',
        "number": 12,
        "real": -1.5e300,
        "yes": True,
        "none": None,
        "list": [1, [2.5, "x"], {}],
    },
    {"text": "", "number": -(1 << 70), "real": 0.0, "yes": False, "none": None, "list": [], "more": {"a": {"b": [None]}}},
    {"text": "\ud800", "number": None, "real": float("inf"), "yes": 1, "none": "x", "list": {}},
    {"text": "plain words " * 20},
]
LINES = "".join(json.dumps(row, ensure_ascii=number % 2 == 0) + "\n" for number, row in enumerate(ROWS[:2] * 2 + ROWS[2:3])).encode()
TEXT = "One.\r\n\r\nTwo naïve 日本語 🙂\n<|endoftext|>\nThree\n<|endoftext|>\n\n<|endoftext|>\nlong line ".encode() + b"word " * 50


def as_parquet(compression: str) -> bytes:
    """A table with a column of every kind of value."""
    moment = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)
    columns = {
        "text": pyarrow.array(["naïve 日本語", None, "", "words"]),
        "category": pyarrow.array(["a", "b", "a", None]).dictionary_encode(),
        "binary": pyarrow.array([b"\xff\x00", b"", None, b"abc"]),
        "int8": pyarrow.array([1, -1, None, 127], pyarrow.int8()),
        "uint64": pyarrow.array([1, 1 << 63, None, 0], pyarrow.uint64()),
        "real": pyarrow.array([1.5, float("nan"), None, float("-inf")]),
        "half": pyarrow.array(np.array([1, 2, 3, 4], np.float16)),
        "yes": pyarrow.array([True, False, None, True]),
        "none": pyarrow.nulls(4),
        "date": pyarrow.array([moment.date(), None, datetime.date.min, datetime.date.max]),
        "time": pyarrow.array([moment.time(), None, datetime.time.min, datetime.time.max]),
        "moment": pyarrow.array([moment, None, datetime.datetime.min, datetime.datetime.max], pyarrow.timestamp("us")),
        "nanoseconds": pyarrow.array([1, None, 1000, 1 << 60], pyarrow.timestamp("ns")),
        "zone": pyarrow.array([moment, None, moment, moment], pyarrow.timestamp("ms", "Europe/Vienna")),
        "duration": pyarrow.array([datetime.timedelta(days=1), None, datetime.timedelta(0), datetime.timedelta(seconds=-1)]),
        "decimal": pyarrow.array([decimal.Decimal("1.25"), None, decimal.Decimal(0), decimal.Decimal("-99.99")], pyarrow.decimal128(9, 2)),
        "list": pyarrow.array([["a", None], [], None, ["b"]]),
        "structure": pyarrow.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": []}, {"a": 2, "b": None}]),
        "map": pyarrow.array([[("k", 1)], [], None, [("a", 2), ("b", 3)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    }
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file, compression=compression)
    return file.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "a.jsonl": lambda: LINES,
    "a.jsonl.gz": lambda: gzip.compress(LINES, mtime=0),
    "a.jsonl.zst": lambda: bytes(pyarrow.compress(LINES, "zstd", asbytes=True)),
    "a.json": lambda: json.dumps(ROWS, indent=1).encode(),
    "lines.json": lambda: LINES,
    "a.txt": lambda: b"\xef\xbb\xbf" + TEXT,
    "plain.parquet": lambda: as_parquet("none"),
    "compressed.parquet": lambda: as_parquet("snappy"),
}


def readers(path: Path) -> Iterator[Callable[[], Iterable[object]]]:
    """Every way in which the project reads such a file."""
    name = str(path)
    yield lambda: read_rows_or_errors(name, lambda fields: fields)
    if path.suffix == ".parquet":
        yield lambda: read_rows(name, lambda fields: fields)
        yield from (partial(read_column, name, field) for field in ("text", "category", "binary"))
    elif path.suffix == ".txt":
        yield from (partial(read_text, name, limit) for limit in (10, 1 << 20))
    else:
        yield lambda: read_json(name)


def read_all(read: Callable[[], Iterable[object]]) -> None:
    for row in read():
        assert row is None or isinstance(row, dict | str | bytes | tuple)


@pytest.mark.parametrize("name", FILES)
@COUNTS
def test_a_damaged_file_of_a_user_gives_rows_or_is_refused(tmp_path: Path, name: str, count: int) -> None:
    path, original = tmp_path / name, FILES[name]()
    path.write_bytes(original)
    assert any(refused(partial(read_all, read)) for read in readers(path)) == (
        name == "lines.json"
    )  # a job over rows wants a list in a .json file
    for content in mutants(original, count):
        path.write_bytes(content)
        for read in readers(path):
            refused(partial(read_all, read))


def check_split(dataset: Dataset, split: Split, boundary: int) -> None:
    """Reading gives the ids in the files, all below the end of the vocabulary, and whole documents; else a UserError."""
    in_files = np.concatenate([np.fromfile(dataset.folder / shard.name, ID_DTYPE) for shard in dataset.shards(split)])
    stream = dataset.stream(split)
    ids = stream.read(0, len(stream))
    assert np.array_equal(ids, in_files)
    assert ids.max() < dataset.vocab_size
    reader = DocumentReader(dataset, split, boundary)
    assert np.array_equal(np.concatenate([reader.read(index) for index in range(len(reader))]), ids)


def test_a_parquet_date_that_python_lacks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"], "moment": pyarrow.array([1 << 62], pyarrow.timestamp("us"))}), path)
    with pytest.raises(UserError, match="a.parquet cannot be read as Parquet: date value out of range"):
        list(read_rows_or_errors(str(path), lambda fields: fields))
    assert list(read_rows_or_errors(str(path), lambda fields: fields[:1])) == [{"text": "x"}]


@COUNTS
def test_a_damaged_shard_is_read_as_it_is_or_refused(dataset_folder: Path, tmp_path: Path, count: int) -> None:
    """Training does not check hashes: it may read other ids, but none outside the vocabulary. Checking them refuses every mutant."""
    folder = tmp_path / "data"
    shutil.copytree(dataset_folder, folder)
    boundary = Tokenizer.load(folder).end_of_text
    for split in SPLITS:
        check_split(open_dataset(folder, check_hashes=True), split, boundary)
        path = folder / f"{split}_00000.bin"
        original = path.read_bytes()
        for content in mutants(original, count // 2, seed=len(split)):
            path.write_bytes(content)
            assert refused(lambda: open_dataset(folder, check_hashes=True))
            if len(content) != len(original):
                assert refused(lambda: open_dataset(folder))
                continue
            for read in SPLITS:
                check = partial(check_split, open_dataset(folder), read, boundary)
                assert not refused(check) or read == split
        path.write_bytes(original)
