"""Text files of users: tables, other encodings, rows that may be skipped."""

import csv
import gzip
import io
import itertools
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import PreprocessConfig
from formats import rows, utf8
from formats.shards import SPLITS, open_dataset
from formats.tables import LostLines, parse_table
from preprocessing.sources import Position, open_documents
from system.encodings import AsUtf8
from system.errors import UserError
from tests.conftest import fails_with, make_documents
from tests.formats.test_rows import CHARACTERS, READ_TEXTS, WRITERS, as_lines, read
from tests.preprocessing.in_process import run_here


@given(
    st.lists(st.lists(st.text(CHARACTERS), min_size=2, max_size=2), max_size=8),
    st.sampled_from(["excel", "excel-tab", "unix"]),
    st.integers(1, 4),
)
def test_a_table_gives_its_cells_back(tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]], dialect: str, bad: int) -> None:
    """Whatever is in them, also around a row with a cell too few."""
    file = io.StringIO()
    writer = csv.writer(file, dialect)
    writer.writerows([["a\nb", "é"], *cells[:bad], ["alone"], *cells[bad:]])
    path = tmp_path_factory.getbasetemp() / ("property.tsv" if dialect == "excel-tab" else "property.csv")
    path.write_bytes(file.getvalue().encode())
    headers: list[list[str]] = []
    found = list(parse_table(str(path), headers.append))
    assert headers == [["a\nb", "é"]]
    error = found.pop(min(bad, len(cells)))
    assert isinstance(error, UserError)
    line = 1 + (file.getvalue().partition("alone")[0]).count("\n")
    assert str(error) == f"{path}, line {line}: 1 cell, but the header has 2"
    assert found == [{"a\nb": first, "é": second} for first, second in cells]


BROKEN_QUOTES = [  # rows, what is told, and whether lines are lost that may be rows
    (b'1,2\n3,"4\n5,6\n7,8\n', "line 3: a quote opens here and is never closed; the 3 lines from here to the end are one cell", True),
    (b'1,2\n"3\n4",\n"5\n6', "line 5: a quote opens here and is never closed; the 2 lines from here to the end are one cell", True),
    (b'1,"2', "line 2: a quote opens here and is never closed; close it", False),
    (
        b'1,"x\n2,y\n3,z",\n4,w\n',
        "line 2: 3 cells, but the header has 2; the row has 3 lines: perhaps a quote in it was never closed",
        True,
    ),
    (b'"1,2\n"3","4"\n', "line 2: a quote opens here and ends only on line 3, in the middle of a cell, so these 2 lines are", True),
    (b'"1\n1","2\n3"4\n', "line 3: a quote opens here and ends only on line 4, in the middle of a cell, so these 2 lines are", True),
    (b'a"b,"2" 3\n', "line 2: text follows a closing quote; a quote inside a quoted cell is written twice", False),
    (b"1,2\n3\r4,5\n", "line 3: a carriage return (CR) outside quotes, although the lines end otherwise", False),
]


@pytest.mark.parametrize(("content", "told", "loses_lines"), BROKEN_QUOTES)
def test_a_broken_quote_is_told_with_the_line_where_it_opened(
    content: bytes, told: str, loses_lines: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,b\n" + content)
    error = [row for row in parse_table(str(path), len) if isinstance(row, UserError)][-1]
    assert str(error).startswith(f"{path}, {told}")
    assert isinstance(error, LostLines) == loses_lines
    list(open_documents(PreprocessConfig(input=(str(path),), skip_bad_rows=True)).read(Position(0, 0)))
    assert capsys.readouterr().out == (f"{error}\n" if loses_lines else "")  # others are counted only


def test_a_cell_of_a_quote_that_is_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formats.tables.MAX_LINE_BYTES", 100)
    (tmp_path / "a.csv").write_bytes(b'text\none\n"two\n' + b"more\n" * 30)
    _, error, *_ = parse_table(str(tmp_path / "a.csv"), len)
    assert f"{tmp_path / 'a.csv'}, line 3: a cell is longer than 256 MiB; perhaps a quote opens here and is never closed" == str(error)


@given(st.lists(st.lists(st.text(CHARACTERS), min_size=2, max_size=2), max_size=8), st.integers(1, 9))
def test_lines_may_end_in_a_carriage_return_alone(
    tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]], read_bytes: int
) -> None:
    """As old Macs wrote them; a line break in a cell is one too."""
    cells = [[cell.replace("\n", "\r") for cell in row] for row in cells]
    file = io.StringIO()
    csv.writer(file, lineterminator="\r").writerows([["text", "b"], *cells, ["alone"]])
    path = tmp_path_factory.getbasetemp() / "returns.csv"
    path.write_bytes(file.getvalue().encode())
    with mock.patch("system.encodings.READ_BYTES", read_bytes):
        *found, error = parse_table(str(path), len)
    assert found == [dict(zip(("text", "b"), (cell.replace("\r", "\n") for cell in row), strict=True)) for row in cells]
    line = file.getvalue().count("\r")
    assert str(error) == f"{path}, line {line}: 1 cell, but the header has 2"


def test_a_cell_may_be_long_and_a_line_may_not_be_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text\n" + b"x" * 1_000_000 + b"\n" + b"y" * 3_000_000 + b"\nz\n")
    assert [len(text or b"") for text in read(path)] == [1_000_000, 3_000_000, 1]
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 2_000_000)
    first, error, last = parse_table(str(path), len)
    assert isinstance(first, dict) and last == {"text": "z"}
    assert str(error).startswith(f"{path}, line 3: longer than ")


@pytest.mark.parametrize("name", ["a.jsonl", "list.json", "a.txt", "a.csv", "a.jsonl.gz"])
@pytest.mark.parametrize("encoding", ["utf-16", "UTF-16-LE", "utf-32-be", "utf8", "utf-8-sig", "gb18030"])
def test_text_is_read_in_any_encoding(name: str, encoding: str, tmp_path: Path) -> None:
    data = (gzip.decompress if name.endswith("gz") else bytes)(WRITERS[name]()).decode().encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    source = open_documents(PreprocessConfig(input=(str(tmp_path),), encoding=encoding))
    found = [document.text for row, _ in source.read(Position(0, 0)) for document in row]
    assert found == [text.encode() for text in READ_TEXTS]


@given(st.text(CHARACTERS), st.sampled_from(["utf-16", "utf-32", "utf-7", "gb18030", "utf-8"]), st.integers(1, 9))
def test_a_text_in_another_encoding_is_the_same_in_utf8(text: str, encoding: str, read_bytes: int) -> None:
    """However much is decoded at once."""
    with mock.patch("system.encodings.READ_BYTES", read_bytes):
        assert io.BufferedReader(AsUtf8(io.BytesIO(text.encode(encoding)), encoding, "x")).read() == text.encode()


def test_bytes_that_an_encoding_lacks_are_counted_or_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\xe9"}\n{"text": "\x81"}\n')
    source = open_documents(PreprocessConfig(input=(str(tmp_path),), encoding="cp1252"))
    assert [document.text for row, _ in source.read(Position(0, 0)) for document in row] == ["é".encode(), b"\xed\xb2\x81"]
    (tmp_path / "a.jsonl").write_bytes('{"text": "x"}\n'.encode("utf-16-le")[:-1])
    with pytest.raises(UserError, match=r"a.jsonl is not in utf-16-le: .*truncated data. Name another --encoding"):
        list(open_documents(PreprocessConfig(input=(str(tmp_path),), encoding="utf-16-le")).read(Position(0, 0)))


def test_invalid_rows_of_a_valid_file_are_told_once_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\xe9"}\n{"text": "plain"}\n\n')
    (tmp_path / "b.txt").write_bytes("naïve 日本".encode())
    source = open_documents(PreprocessConfig(input=(str(tmp_path),)))
    for _ in range(2):
        assert len(list(source.read(Position(0, 0)))) == 3
    path = tmp_path / "a.jsonl"
    assert capsys.readouterr().out == (
        f"{path}: 1 of 2 rows skipped as not valid UTF-8. If it is in another encoding, name it: --encoding cp1252\n"
    )


def test_a_file_in_another_encoding_is_refused_before_it_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utf8, "LOOKED_AT", 10)
    path = tmp_path / "a.jsonl"
    invalid = b'{"text": "\xe9"}\n' * 100
    path.write_bytes(b'{"text": "good"}\n' * 5 + invalid)
    assert len(read(path)) == 105
    path.write_bytes(invalid)
    documents = open_documents(PreprocessConfig(input=(str(path),))).read(Position(0, 0))
    assert len(list(itertools.islice(documents, 9))) == 9
    with pytest.raises(UserError, match="a.jsonl is not UTF-8"):
        next(documents)
    assert len(list(open_documents(PreprocessConfig(input=(str(path),), skip_bad_rows=True)).read(Position(0, 0)))) == 100


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv.gz"])
def test_utf_16_without_a_mark_is_named(name: str, tmp_path: Path) -> None:
    """ASCII in it is valid UTF-8, with zeros between the letters."""
    data = WRITERS[name.removesuffix(".gz")]().decode().replace("é", "e").encode("utf-16-le")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with pytest.raises(UserError, match=f"{name} seems to be in UTF-16-LE, without a byte order mark. Read it with --encoding utf-16-le"):
        read(tmp_path / name)


def test_a_text_file_is_one_row_however_it_is_cut(tmp_path: Path) -> None:
    """A part that happens to be ASCII does not make it UTF-8."""
    (tmp_path / "a.txt").write_bytes(b"plain words. " * 200 + b"caf\xe9 " * 400)
    with pytest.raises(UserError, match="a.txt is not UTF-8"):
        read(tmp_path / "a.txt", limit=1024)


BAD_ROWS = {
    "a.jsonl": b'{"text": "one"}\n{"text": \n[2]\n{"text": "two"}\n',
    "a.json": b'[{"text": "one"}, 1, "x", {"text": "two"}]',
    "a.csv": b"text,id\none,1\nalone\na,b,c\ntwo,2\n",
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_skipped_and_counted_if_asked_for(name: str, tmp_path: Path) -> None:
    good = as_lines(make_documents(60))
    (tmp_path / "good.jsonl").write_bytes(good)
    (tmp_path / name).write_bytes(BAD_ROWS[name])
    flags = [
        "preprocess_xcoax.py",
        "--data-dir",
        tmp_path / "data",
        "--vocab-size",
        400,
        "--input",
        tmp_path / name,
        tmp_path / "good.jsonl",
    ]
    fails_with(run_here(*flags), 1, f"{tmp_path / name}, ")
    result = run_here(*flags, "--skip-bad-rows")
    assert result.returncode == 0, result.stderr
    assert "2 skipped: row that cannot be read" in result.stdout
    dataset = open_dataset(tmp_path / "data", check_hashes=True)
    assert dataset.meta["counts"] == {"skipped: row that cannot be read": 2}
    assert dataset.meta["settings"]["skip_bad_rows"] is True
    assert sum(shard.documents for split in SPLITS for shard in dataset.shards(split)) == 62


@pytest.mark.parametrize("end", [b"", b"\n", b'\n{"text": "after"}\n'])
def test_a_line_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 300)
    path = tmp_path / "a.jsonl"
    path.write_bytes(as_lines(["before", "x" * 200, "y" * 1000])[:-1] + end)
    read_rows = rows.read_json(str(path))
    assert [len(next(read_rows)["text"]) for _ in range(2)] == [6, 200]
    with pytest.raises(UserError, match=r"a.jsonl, line 3: longer than \d+ MiB"):
        next(read_rows)
