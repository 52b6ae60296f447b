"""A file of every format that users give, small but with every kind of value, and every reader that reads it."""

import csv
import datetime
import decimal
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import pyarrow
import pyarrow.parquet

from config import InstructConfig, PreprocessConfig
from formats.pairs import Pair, pair_from_row, pairs_with_answers, response_from_row
from formats.parquet_files import read_column, read_range, read_rows, row_groups
from formats.rows import read_json, read_text
from formats.tolerant_rows import read_rows_or_errors
from preprocessing.sources import Document, Position, Source, open_documents, open_pairs

ROWS: list[dict[str, object]] = [
    {
        "text": 'naïve 日本語 🙂\n\t"quoted" \\ \u0001',
        "number": 12,
        "real": -1.5e300,
        "yes": True,
        "none": None,
        "list": [1, [2.5, "x"], {}],
    },
    {"text": "", "instruction": "Say it", "output": "It.", "number": -(1 << 70), "list": [], "more": {"a": {"b": [None]}}},
    {"text": "\ud800", "messages": [{"role": "user", "content": "é?"}, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]},
    {"text": "plain words " * 20, "prompt": "x", "chosen": [{"from": "gpt", "value": "y"}]},
]
LINES = "".join(json.dumps(row, ensure_ascii=number % 2 == 0) + "\n" for number, row in enumerate(ROWS[:2] * 2 + ROWS[2:3])).encode()
TEXT = "One.\r\n\r\nTwo naïve é — “x”\n<|endoftext|>\nThree\n<|endoftext|>\n\n<|endoftext|>\nlong line ".encode() + b"word " * 50
WIDE = "Größe, 日本語 🙂\n<|endoftext|>\nZwei\r\n" * 4


def as_table(dialect: str) -> bytes:
    """CSV or TSV with quotes and line breaks in cells."""
    file = io.StringIO()
    rows = [("text", "instruction", "output"), ('a "b", c', "naïve\n日本", "x\ty"), ("", "what?", "that."), ("plain", " ", "1e5")]
    csv.writer(file, dialect).writerows(rows * 2 if dialect == "none" else rows + rows[1:])
    return file.getvalue().encode()


def as_parquet(**options: object) -> bytes:
    """A table with a column of every kind of value."""
    moment = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)
    columns = {
        "text": pyarrow.array(["naïve 日本語", None, "", "words"]),
        "instruction": pyarrow.array(["a", "b", "a", None]).dictionary_encode(),
        "output": pyarrow.array([b"\xff\x00", b"", None, b"abc"]),
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
    pyarrow.parquet.write_table(pyarrow.table(columns), file, **options)
    return file.getvalue()


CODECS = {"text": "snappy", "instruction": "gzip", "output": "zstd", "int8": "brotli", "uint64": "lz4"}
FILES: dict[str, tuple[str, Callable[[], bytes]]] = {  # by name: the encoding and the contents
    "a.jsonl": ("utf-8", lambda: LINES),
    "a.jsonl.gz": ("utf-8", lambda: gzip.compress(LINES, mtime=0)),
    "a.jsonl.zst": ("utf-8", lambda: bytes(pyarrow.compress(LINES, "zstd", asbytes=True))),
    "a.json": ("utf-8", lambda: json.dumps(ROWS, indent=1).encode()),
    "lines.json": ("utf-8", lambda: LINES),
    "a.txt": ("utf-8", lambda: b"\xef\xbb\xbf" + TEXT),
    "a.csv": ("utf-8", lambda: as_table("excel")),
    "a.csv.gz": ("utf-8", lambda: gzip.compress(as_table("excel"), mtime=0)),
    "a.tsv": ("utf-8", lambda: as_table("excel-tab")),
    "a.tsv.zst": ("utf-8", lambda: bytes(pyarrow.compress(as_table("excel-tab"), "zstd", asbytes=True))),
    "utf-16.txt": ("utf-16", lambda: WIDE.encode("utf-16")),
    "utf-32.csv": ("utf-32", lambda: as_table("excel").decode().encode("utf-32")),
    "cp1252.txt": ("cp1252", lambda: TEXT.decode().encode("cp1252")),
    "utf-7.jsonl": ("utf-7", lambda: LINES.decode().encode("utf-7")),
    "shift-jis.jsonl": ("shift_jis", lambda: '{"text": "日本語", "output": "テスト"}\n'.encode("shift_jis") * 5),
    "iso-2022-jp.txt": ("iso2022_jp", lambda: ("日本語\n<|endoftext|>\nテスト\n" * 3).encode("iso2022_jp")),
    "plain.parquet": ("utf-8", partial(as_parquet, compression="none")),
    "codecs.parquet": ("utf-8", partial(as_parquet, compression=CODECS, row_group_size=3)),
    "checksums.parquet": ("utf-8", partial(as_parquet, write_page_checksum=True, data_page_version="2.0")),
}
Reader = Callable[[], Iterable[object]]
LIMIT = 100  # bytes of a document


def readers(path: str, encoding: str) -> list[Reader]:
    """Every way in which the project reads such a file. The first reads most of it."""
    texts = [PreprocessConfig(input=(path,), encoding=encoding, skip_bad_rows=skip, max_document_bytes=LIMIT) for skip in (False, True)]
    pairs = [InstructConfig(input=(path,), encoding=encoding, skip_bad_rows=skip) for skip in (False, True)]
    found: list[Reader] = [lambda: read_rows_or_errors(path, lambda fields: fields, encoding)]
    found += [partial(_items, open_documents, config) for config in texts]
    if not path.endswith(".txt"):
        found += [partial(_items, open_pairs, config) for config in pairs]
    if path.endswith(".parquet"):
        found += [lambda: read_rows(path, lambda fields: fields), lambda: row_groups(path, "text"), lambda: read_range(path, "text", 1, 3)]
        found += [partial(read_column, path, field) for field in ("text", "instruction", "output")]
    elif path.endswith(".txt"):
        found += [partial(read_text, path, limit, encoding) for limit in (10, 1 << 20)]
    elif encoding == "utf-8" and ".json" in path:
        found.append(partial(read_json, path))
    return found


def _items(open_source: Callable[..., Source[Document] | Source[Pair]], config: object) -> Iterator[object]:
    source = open_source(config)
    for start in (Position(0, 0), Position(0, 2)):
        for items, _ in source.read(start):
            yield from items


def check_item(item: object) -> None:
    """Fail unless an item is of a type that its readers promise, and can be used."""
    match item:
        case Document():
            assert item.text is None or (isinstance(item.text, bytes) and len(item.text) <= LIMIT)
            assert item.text is not None or not item.continues
        case Pair():
            assert bool(item.trouble) != bool(item.instruction and item.response)
            assert item.size == len((item.instruction + item.response).encode())
        case dict():
            assert all(isinstance(name, str) for name in item)
            for pair in (pair_from_row(item), *pairs_with_answers(item)):
                check_item(pair)
            response_from_row(item)
        case _:
            assert item is None or isinstance(item, str | bytes | tuple)
