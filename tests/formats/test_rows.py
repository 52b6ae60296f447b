"""Rows of local files in every format, also with unusual contents.

The files are read as preprocessing reads them, through preprocessing.sources.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import strategies as st

from config import PreprocessConfig
from preprocessing.sources import Position, open_documents

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
BOM = b"\xef\xbb\xbf"
TEXTS = ["Once upon a time.\nThe end.", "  日本語 naïve 🙂\n\n\tindented ", "say <|endoftext|> aloud", "CRLF\r\nhere", "\ufeffinside"]
READ_TEXTS = [text.replace("\r\n", "\n") for text in TEXTS]


def read(*inputs: Path | str, field: str = "text", limit: int = 1 << 20) -> list[bytes | None]:
    """The documents of local files; the parts of a document are joined again."""
    source = open_documents(PreprocessConfig(input=tuple(map(str, inputs)), field=field, max_document_bytes=limit))
    documents: list[bytes | None] = []
    for row, _ in source.read(Position(0, 0)):
        for text, continues, *_ in row:
            if continues:
                before = documents.pop()
                assert before is not None and text is not None
                text = before + text
            documents.append(text)
    return documents


def read_strings(*inputs: Path | str, field: str = "text") -> list[str]:
    return [text.decode() for text in read(*inputs, field=field) if text is not None]


def as_lines(texts: list[str], end: str = "\n") -> bytes:
    return "".join(json.dumps({"id": 1, "text": text}, ensure_ascii=False) + end for text in texts).encode()


def as_list(texts: list[str]) -> bytes:
    return json.dumps([{"text": text, "more": [1, {}]} for text in texts], indent=1).encode()


def as_text(texts: list[str], end: str = "\n") -> bytes:
    return f"{end}<|endoftext|>{end}".join(texts).encode()


def as_csv(texts: list[str], dialect: str = "excel") -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, dialect)
    writer.writerows([("id", "text", "empty"), *((1, text, "") for text in texts)])
    return file.getvalue().encode()


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def as_parquet(folder: Path, **columns: object) -> bytes:
    path = folder / "made.parquet.tmp"
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path.read_bytes()


WRITERS: dict[str, Callable[[], bytes]] = {
    "a.jsonl": lambda: as_lines(TEXTS),
    "no_final_newline.jsonl": lambda: as_lines(TEXTS)[:-1],
    "blank_lines.jsonl": lambda: as_lines(TEXTS, "\n \n\n"),
    "windows.jsonl": lambda: BOM + as_lines(TEXTS, "\r\n"),
    "UPPER.JSONL": lambda: as_lines(TEXTS),
    "a.jsonl.gz": lambda: gzip.compress(as_lines(TEXTS)),
    "two_members.jsonl.gz": lambda: gzip.compress(as_lines(TEXTS[:2])) + gzip.compress(as_lines(TEXTS[2:])),
    "bom.jsonl.gz": lambda: gzip.compress(BOM + as_lines(TEXTS)),
    "a.jsonl.zst": lambda: zstd(as_lines(TEXTS)),
    "two_frames.jsonl.zst": lambda: zstd(as_lines(TEXTS[:2])) + zstd(as_lines(TEXTS[2:])),
    "list.json": lambda: as_list(TEXTS),
    "bom.json": lambda: BOM + b" \r\n" + as_list(TEXTS),
    "lines.json": lambda: as_lines(TEXTS),
    "a.csv": lambda: as_csv(TEXTS),
    "windows.csv": lambda: BOM + as_csv(TEXTS).replace(b"\n", b"\r\n").replace(b"\r\r", b"\r"),
    "a.tsv": lambda: as_csv(TEXTS, "excel-tab"),
    "a.csv.gz": lambda: gzip.compress(as_csv(TEXTS)),
    "UPPER.TSV.ZST": lambda: zstd(as_csv(TEXTS, "excel-tab")),
    "a.txt": lambda: as_text(TEXTS),
    "final_newline.txt": lambda: as_text(TEXTS) + b"\n",
    "windows.txt": lambda: BOM + as_text(TEXTS, "\r\n") + b"\r\n",
    "UPPER.TXT": lambda: as_text(TEXTS),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_documents(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(WRITERS[name]())
    assert read_strings(tmp_path / name) == READ_TEXTS


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())])
def test_every_parquet_type_that_holds_text_is_read(kind: pa.DataType, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(as_parquet(tmp_path, id=list(range(500)), story=pa.array(TEXTS * 100).cast(kind)))
    assert read_strings(tmp_path / "a.parquet", field="story") == READ_TEXTS * 100


def test_a_text_file_without_separators_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_bytes(BOM + b"One.\r\n\r\nTwo <|endoftext|> and\n <|endoftext|> three.\n\n")
    assert read(tmp_path / "novel.txt") == [b"One.\n\nTwo <|endoftext|> and\n <|endoftext|> three.\n"]


@pytest.mark.parametrize("field", ["continues", "a b", "text.more", "é"])
def test_a_field_may_have_any_name(field: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "no", field: "yes"}), encoding="utf-8")
    (tmp_path / "b.parquet").write_bytes(as_parquet(tmp_path, text=["no"], **{field: ["yes too"]}))
    assert read(tmp_path / "a.jsonl", tmp_path / "b.parquet", field=field) == [b"yes", b"yes too"]


EMPTY: dict[str, tuple[bytes, list[bytes]]] = {
    "a.jsonl": (b"", []),
    "bom.jsonl": (BOM, []),
    "blank.jsonl": (b"\n\n", []),
    "a.json": (b"", []),
    "list.json": (b" [ ]", []),
    "a.jsonl.gz": (gzip.compress(b""), []),
    "a.jsonl.zst": (zstd(b""), []),
    "a.csv": (b"", []),
    "header.tsv": (b"text\n\n", []),
    "a.txt": (b"", [b""]),
    "bom.txt": (BOM, [b""]),
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_file_does_not_stop_the_run(name: str, tmp_path: Path) -> None:
    data, documents = EMPTY[name]
    (tmp_path / name).write_bytes(data)
    (tmp_path / "z.jsonl").write_bytes(as_lines(TEXTS))
    (tmp_path / "none.parquet").write_bytes(as_parquet(tmp_path, text=pa.array([], pa.string())))
    found = read(tmp_path / "none.parquet", tmp_path / name, tmp_path / "z.jsonl")
    assert found == [*documents, *(text.encode() for text in READ_TEXTS)]


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".parquet"])
def test_a_document_of_many_megabytes_comes_in_parts(ending: str, tmp_path: Path) -> None:
    text = ("".join(f"word{number}日本語🙂 " for number in range(20_000)) + "é" * 100_001 + " ") * 18
    assert len(text.encode()) > 10_000_000
    path = tmp_path / f"a{ending}"
    data = {".txt": text.encode(), ".jsonl": as_lines([text]), ".parquet": as_parquet(tmp_path, text=[text])}
    path.write_bytes(data[ending])
    source = open_documents(PreprocessConfig(input=(str(path),), max_document_bytes=1500))
    documents = [document for row, _ in source.read(Position(0, 0)) for document in row]
    parts = [document.text.decode() for document in documents if document.text is not None]
    assert [document.continues for document in documents] == [False] + [True] * (len(parts) - 1)
    assert "".join(parts) == text
    assert max(len(part.encode()) for part in parts) <= 1500
    assert all(part.endswith(" ") for part in parts[:-1] if "é" not in part)


def test_reading_starts_at_any_row_of_every_format(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(as_lines(TEXTS))
    (tmp_path / "b.txt").write_bytes(as_text(TEXTS))
    (tmp_path / "c.parquet").write_bytes(as_parquet(tmp_path, text=TEXTS * 50))
    (tmp_path / "d.csv").write_bytes(as_csv(TEXTS))
    source = open_documents(PreprocessConfig(input=(str(tmp_path),)))
    rows = list(source.read(Position(0, 0)))
    assert [row[0].text for row, _ in rows] == [text.encode() for text in READ_TEXTS * 53]
    for index in (0, 3, 4, 5, 12, 200, len(rows) - 1):
        assert list(source.read(rows[index][1])) == rows[index + 1 :]


LONE_SURROGATE = b"\xed\xa0\x80"
UNUSUAL = ["", " \n", None, 7, 1.5, True, ["text"], {"text": "x"}, "\ud800", "a\udfffb", "good"]
READ_UNUSUAL = [b"", b" \n", None, None, None, None, None, None, LONE_SURROGATE, b"a\xed\xbf\xbfb", b"good"]
INVALID = b'{"text": "a\xff"}\n{"text": "\x80"}\n{"other": "x"}\n{"text": "also good"}\n'


def test_values_that_are_not_text_are_passed_on_to_be_counted(tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"text": value}).encode() + b"\n" for value in UNUSUAL) + INVALID
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.json").write_bytes(b"[" + b",".join(lines.splitlines()) + b"]")
    invalid = [b"a\xed\xb3\xbf", b"\xed\xb2\x80", None, b"also good"]  # kept as they are: invalid UTF-8 is counted later
    assert read(tmp_path / "a.jsonl") == [*READ_UNUSUAL, *invalid]
    assert read(tmp_path / "a.json") == [*READ_UNUSUAL, *invalid]
    (tmp_path / "a.txt").write_bytes(b"good\n<|endoftext|>\n\xff\xfe bad\n<|endoftext|>\n<|endoftext|>\n \nalso good")
    assert read(tmp_path / "a.txt") == [b"good", b"\xff\xfe bad", b"", b" \nalso good"]
    (tmp_path / "a.csv").write_bytes(b"text,id\na\xff,1\n,2\ngood,3\n")
    assert read(tmp_path / "a.csv") == [b"a\xed\xb3\xbf", b"", b"good"]
    column = pa.array([b"good", None, b"", LONE_SURROGATE, b"\xff"], pa.binary()).view(pa.string())
    (tmp_path / "a.parquet").write_bytes(as_parquet(tmp_path, text=column))
    assert read(tmp_path / "a.parquet") == [b"good", None, b"", LONE_SURROGATE, b"\xff"]


def test_an_escaped_surrogate_pair_is_one_character(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(rb'{"text": "\ud83d\ude42"}')
    assert read_strings(tmp_path / "a.jsonl") == ["🙂"]


def test_of_two_parquet_columns_with_the_same_name_the_first_is_read(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["first"]), pa.array(["second"])], names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [b"first"]
