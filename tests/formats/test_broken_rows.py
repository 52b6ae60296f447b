"""Broken local files of every format: they are refused and named, with the place of the error, and work when they are repaired.

The files are read as preprocessing reads them, through preprocessing.sources.
"""

import gzip
import json
import os
import re
from pathlib import Path

import pytest

from formats.shards import open_dataset
from system.errors import UserError
from tests.conftest import fails_with, make_documents
from tests.formats.test_rows import INVALID, TEXTS, as_lines, as_parquet, read, zstd
from tests.preprocessing.in_process import run_here


def refused(*inputs: Path | str, field: str = "text") -> UserError:
    """The error for inputs that cannot be read."""
    with pytest.raises(UserError) as caught:
        read(*inputs, field=field)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\n\x00"
BROKEN: dict[str, tuple[bytes, str]] = {
    "text.parquet": (b"just text, and enough of it to look for a footer", r"cannot be read as Parquet: .*"),
    "empty.parquet": (b"", r"cannot be read as Parquet: .*"),
    "text.jsonl.gz": (b'{"text": "x"}\n', r"cannot be read: .*"),
    "text.jsonl.zst": (b'{"text": "x"}\n', r"cannot be read: .*"),
    "short.jsonl.gz": (gzip.compress(as_lines([os.urandom(9000).hex() for _ in range(9)]))[:-4000], r"cannot be read: .*"),
    "short.jsonl.zst": (zstd(as_lines([os.urandom(9000).hex() for _ in range(9)]))[:-4000], r"cannot be read: .*"),
    "cut_off.jsonl": (
        as_lines(["a", "b", "long enough"])[:-6],
        r"line 3, column 19 is not JSON: Unterminated string.*\. Expected: an object on each line .*",
    ),
    "cut_off.json": (b'[\n{"text": "a"},\n{"text": "b"},\n{"te', r"line 4, column 2 is not JSON: .*"),
    "pretty.json": (b'{\n "text": "a"\n}\n', r"line 1, column \d is not JSON: .*"),
    "png.jsonl": (PNG, r"line 1, column 1 is not JSON: .*"),
    "png.json": (PNG, r"line 1, column 1 is not JSON: .*"),
    "utf16.jsonl": ('{"text": "x"}\n'.encode("utf-16"), r"is in UTF-16, as its byte order mark says\. Read it with --encoding utf-16"),
    "utf32.txt": ("x".encode("utf-32"), r"is in UTF-32, as its byte order mark says\. Read it with --encoding utf-32"),
    "cp1252.txt": ("“Caf\u00e9”\n".encode("cp1252"), r"is not UTF-8\. Name its encoding, perhaps with --encoding cp1252; or skip it .*"),
    "latin.jsonl": (b'{"text": "\xe9\x81"}\n' * 3, r"is not UTF-8\. Name its encoding, perhaps with --encoding latin-1; or skip it .*"),
    "latin.json": (b'[{"text": "\xe9\x81"}]', r"is not UTF-8\. Name its encoding, perhaps with --encoding latin-1; or skip it .*"),
    "cp1252.csv": (b'text\n"\xe9"\n', r"is not UTF-8\. Name its encoding, perhaps with --encoding cp1252; or skip it .*"),
    "few.csv": (b"id,text\n1,x\n2\n", r"line 3: 1 cell, but the header has 2"),
    "many.tsv": (b'id\ttext\n1\t"two\nlines"\n2\tx\ty\n', r"line 4: 3 cells, but the header has 2"),
    "quote.csv": (b'id,text\n1,"x"y\n', r"line 2: text follows a closing quote; a quote inside a quoted cell is written twice"),
    "open.csv": (
        b'id,text\n1,x\n2,"never\nclosed\n',
        r"line 3: a quote opens here and is never closed; the 2 lines from here .*",
    ),
    "twice.csv": (b"text,text\n1,2\n", r"has two columns named 'text'\. Rename one of them in its first line"),
    "other_column.tsv": (b"id\tcontent\n", r"has no field 'text'; its fields: id, content\. Choose one with --field"),
    "lines.csv": (b'"one\ntwo",id\n', r"has no field 'text'; its fields: one two, id\. Choose one with --field"),
    "list.jsonl": (b'{"text": "x"}\n\n["x"]\n', r"line 3: expected an object, found a JSON list"),
    "number.jsonl": (b'{"text": "x"}\n7', r"line 2: expected an object, found a JSON int"),
    "null.json": (b'[{"text": "x"}, null]', r"entry 2: expected an object, found a JSON NoneType"),
    "string.json": (b'"x"', r"line 1: expected an object, found a JSON str"),
    "deep.jsonl": (b"[" * 200_000, r"line 1: .*recursion.*"),
    "digits.jsonl": (b'{"text": ' + b"1" * 5000 + b"}", r"line 1: .*4300.*"),
    "other_field.jsonl": (b'{"content": "x", "id": 1}\n', r"has no field 'text'; its fields: content, id\. Choose one with --field"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_the_place_of_the_error(name: str, tmp_path: Path) -> None:
    data, message = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    error = refused(tmp_path)
    assert error.exit_code == 1
    assert re.fullmatch(f"{re.escape(str(tmp_path / name))},? {message}", str(error)), str(error)


def test_a_parquet_field_without_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(as_parquet(tmp_path, id=[1], words=[["a", "b"]]))
    assert f"{path} has no field 'text'; its fields: id, words. Choose one with --field" in str(refused(path))
    assert f"{path}: the field 'id' holds int64, not text" in str(refused(path, field="id"))
    assert f"{path}: the field 'words' holds list<" in str(refused(path, field="words"))
    path.write_bytes(path.read_bytes()[:-30])
    assert f"{path} cannot be read as Parquet" in str(refused(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(as_lines(TEXTS))
    path.chmod(0)
    assert f"{path} cannot be read" in str(refused(path))


def test_the_script_refuses_a_broken_file_and_works_when_it_is_repaired(tmp_path: Path) -> None:
    source, folder = tmp_path / "stories.jsonl", tmp_path / "data"
    flags = ["preprocess_xcoax.py", "--data-dir", folder, "--vocab-size", 400, "--input"]
    complete = as_lines(make_documents(60))
    source.write_bytes(complete[:-9])
    fails_with(run_here(*flags, source), 1, f"{source}, line 60, column ", "is not JSON: Unterminated string")
    for missing in (tmp_path / "stories.json", tmp_path / "*.txt"):
        fails_with(run_here(*flags, missing), 2, f"--input {missing}: no such file")
    source.write_bytes(complete + INVALID + json.dumps({"text": "\ud800"}).encode())
    long = " ".join(make_documents(30))
    (tmp_path / "long.txt").write_text(long, encoding="utf-8")
    result = run_here(*flags, source, tmp_path / "long.txt", "--max-document-bytes", 1024)
    assert result.returncode == 0, result.stderr
    dataset = open_dataset(folder, check_hashes=True)
    counts = dataset.meta["counts"]
    assert counts.pop("parts of cut documents") >= len(long.encode()) // 1024
    assert counts == {"skipped: invalid UTF-8": 3, "skipped: not text": 1}


def test_a_file_that_is_broken_far_inside_keeps_the_finished_chunks(tmp_path: Path) -> None:
    """The broken line comes after the sample of the tokenizer and after the first chunks."""
    source, folder = tmp_path / "many.jsonl", tmp_path / "data"
    source.write_bytes(as_lines([f"{number} some words" for number in range(25_000)]) + b'{"text": "x"')
    flags = ["preprocess_xcoax.py", "--data-dir", folder, "--vocab-size", 280, "--sample-bytes", 100_000, "--input", source]
    fails_with(run_here(*flags), 1, f"{source}, line 25001, column ")
    assert (folder / "unfinished" / "chunk_00000.json").is_file()
    source.write_bytes(source.read_bytes() + b"}\n")
    fails_with(run_here(*flags), 2, "was started with different settings", "delete the folder")
