"""Rows or errors: a bad row comes as a text that says what is wrong with it, and the rows after it are still read."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from formats import rows, tables
from formats.parquet_files import table_rows
from formats.tolerant_rows import Row, read_rows_or_errors
from system.errors import UserError

LINES = b'{"a": 1}\r\n\n[2]\nnot json\n\xff\n{"a": "\xc3\xa9"}'
NOT_UTF8 = "not valid UTF-8: if the file is in another encoding, name it, perhaps --encoding cp1252"
READ_LINES = [{"a": 1}, "expected an object, found a JSON list", "not JSON: ", NOT_UTF8, {"a": "é"}]


def read(path: Path) -> list[Row | str]:
    return list(read_rows_or_errors(str(path), lambda fields: fields))


@pytest.mark.parametrize(("name", "data"), [("a.jsonl", LINES), ("A.JSONL.GZ", gzip.compress(LINES, mtime=0))])
def test_bad_lines_do_not_end_the_file(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    found = [row[:10] if isinstance(row, str) and row.startswith("not JSON: ") else row for row in read(tmp_path / name)]
    assert found == READ_LINES


def test_each_line_of_a_text_file_is_a_response(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone \r\n \n\xff\n<|endoftext|>\nlast")
    assert read(tmp_path / "a.txt") == [{"response": "one "}, NOT_UTF8, {"response": "last"}]  # the other line separates documents


def test_a_json_file_is_one_list(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"a": 1}, 2, {"a": 3}]))
    assert read(path) == [{"a": 1}, "expected an object, found a JSON int", {"a": 3}]
    path.write_text("[1, ")
    with pytest.raises(UserError, match="a.json is not JSON"):
        read(path)
    path.write_text('{"a": 1}')
    with pytest.raises(UserError, match="expected one list of objects"):
        read(path)


def test_a_parquet_row_with_invalid_utf8_does_not_end_the_file(tmp_path: Path) -> None:
    column = pyarrow.array([b"good", b"\xff", b"also good"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"a": column, "b": [1, 2, 3]}), tmp_path / "a.parquet")
    rows = list(read_rows_or_errors(str(tmp_path / "a.parquet"), lambda fields: fields[:1]))
    assert rows == [{"a": "good"}, "not valid UTF-8", {"a": "also good"}]


def test_a_date_that_python_cannot_hold_is_one_line(tmp_path: Path) -> None:
    """Also in a table that comes from the hub."""
    table = pyarrow.table({"a": ["x"], "when": pyarrow.array([1 << 50], pyarrow.timestamp("ms"))})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    told = r"'when' \(timestamp\[ms\]\) holds a value beyond what Python can hold, such as a year after 9999 \(.*\). Correct it, or write"
    with pytest.raises(UserError, match=f"a.parquet: {told}"):
        read(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=f"someone/data, file 1 of 1: {told}"):
        table_rows(table, "someone/data, file 1 of 1")
    assert table_rows(table.select(["a"]), "") == [{"a": "x"}]


def test_a_missing_file_or_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    for name, message in (("a.jsonl", "no such file"), ("a.pdf", "supported endings: .parquet, .jsonl")):
        with pytest.raises(UserError, match=message) as caught:
            read(tmp_path / name)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "txt"])
def test_a_line_that_is_too_long_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 300)
    texts = ["before", "x" * 200, "y" * (3 << 20), "after"]  # the third is skipped in several parts
    lines = "".join((text if kind == "txt" else json.dumps({"response": text})) + "\n" for text in texts).encode()
    path = tmp_path / f"a.{kind}"
    path.write_bytes(gzip.compress(lines) if kind.endswith("gz") else lines)
    first, second, error, last = read(path)
    assert (first, second, last) == ({"response": "before"}, {"response": "x" * 200}, {"response": "after"})
    assert isinstance(error, str) and error.startswith("longer than ")


def test_a_table_is_read_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n1,"two\nlines"\n2\n3,\xff\n\n4,"say ""x"""\n')
    assert read(path) == [
        {"a": "1", "b": "two\nlines"},
        "not a row of the table: line 4: 1 cell, but the header has 2",
        NOT_UTF8,
        {"a": "4", "b": 'say "x"'},
    ]

    def refuse(fields: list[str]) -> list[str]:
        raise UserError(f"no pairs in {fields}")

    with pytest.raises(UserError, match=r"no pairs in \['a', 'b'\]"):
        list(read_rows_or_errors(str(path), refuse))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.tsv"])
def test_a_file_in_another_encoding_is_named_or_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    texts = {"a.txt": "é", "a.jsonl": '{"response": "é"}', "a.json": '[{"response": "é"}]', "a.tsv": "response\né"}
    path.write_text(texts[name], encoding="utf-16")
    with pytest.raises(UserError, match=f"{name} is in UTF-16, as its byte order mark says. Read it with --encoding utf-16"):
        read(path)
    assert list(read_rows_or_errors(str(path), list, "utf-16")) == [{"response": "é"}]


def test_the_field_of_a_line_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    assert list(read_rows_or_errors(str(tmp_path / "a.txt"), list, line_field="prompt")) == [{"prompt": "one"}]


def test_a_json_list_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'[{"a": "\xe9"}]')
    with pytest.raises(UserError, match=f"a.json is {NOT_UTF8}"):
        read(tmp_path / "a.json")


def test_a_parquet_date_that_python_lacks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"], "moment": pyarrow.array([1 << 62], pyarrow.timestamp("us"))}), path)
    with pytest.raises(UserError, match=r"a.parquet: 'moment' \(timestamp\[us\]\) holds a value beyond what Python can hold"):
        list(read_rows_or_errors(str(path), lambda fields: fields))
    assert list(read_rows_or_errors(str(path), lambda fields: fields[:1])) == [{"text": "x"}]


def test_a_quote_that_is_never_closed_ends_with_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROW_BYTES", 1000)
    (tmp_path / "a.csv").write_text('a,b\n1,"two\n' + "\n" * 30 + "3,4\n5,6\n")
    assert read(tmp_path / "a.csv")[0] == "not a row of the table: line 2: a row longer than 0 MiB; perhaps a quote in it is never closed"
    assert read(tmp_path / "a.csv")[-1] == {"a": "5", "b": "6"}
