"""Files at a URL: found, told apart, opened; a lost connection is worth a retry, and what cannot work is refused in one line."""

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from formats import remote_files
from formats.input_files import find_files, fingerprint
from formats.parquet_files import read_column, read_range
from formats.rows import read_json
from system.errors import UserError
from tests.conftest import make_documents, write_jsonl
from tests.preprocessing.in_process import contents, run_here


@pytest.fixture
def storage() -> Iterator[Any]:
    """An empty storage in the memory of this process."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def as_parquet(texts: list[str]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"text": texts}), file, row_group_size=10)
    return file.getvalue()


def test_files_folders_and_globs_are_found_in_order(storage: Any) -> None:
    for name in ("b.jsonl", "a.parquet", "notes.md", "deep/c.txt"):
        storage.pipe(f"/box/{name}", b"x")
    assert find_files(("memory://box",)) == ["memory:///box/a.parquet", "memory:///box/b.jsonl", "memory:///box/deep/c.txt"]
    assert find_files(("memory://box/*.jsonl", "memory://box/a.parquet")) == ["memory:///box/b.jsonl", "memory:///box/a.parquet"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("memory://box/none.jsonl", "no such file, or no file in it"),
        ("memory://box/*.parquet", "no such file, or no file in it"),
        ("nowhere://x/a.jsonl", "Protocol not known: nowhere"),
    ],
)
def test_what_cannot_be_read_is_refused(given: str, message: str, storage: Any) -> None:
    with pytest.raises(UserError, match=message):
        find_files((given,))


def test_a_fingerprint_changes_with_the_file(storage: Any) -> None:
    storage.pipe("/box/a.jsonl", b"one")
    before = fingerprint("memory://box/a.jsonl")
    assert before.startswith("a.jsonl (3 bytes, ")
    assert fingerprint("memory://box/a.jsonl") == before
    storage.pipe("/box/a.jsonl", b"two")
    assert fingerprint("memory://box/a.jsonl") != before


def test_rows_are_those_of_a_local_file(storage: Any, tmp_path: Path) -> None:
    texts = [f"text {row}" for row in range(35)]
    storage.pipe("/box/a.parquet", as_parquet(texts))
    storage.pipe("/box/a.jsonl.gz", gzip.compress(b'{"text": "one"}\n{"text": "two"}\n'))
    expected = [text.encode() for text in texts]
    assert list(read_column("memory://box/a.parquet", "text")) == expected
    assert list(read_range("memory://box/a.parquet", "text", 5, 31)) == expected[5:31]
    assert [row["text"] for row in read_json("memory://box/a.jsonl.gz")] == ["one", "two"]


@pytest.mark.parametrize("error", [OSError("reset"), TimeoutError("slow"), RuntimeError("the storage's own")])
def test_a_lost_connection_is_worth_a_retry(error: Exception, storage: Any) -> None:
    storage.pipe("/box/a.parquet", as_parquet(["a"] * 20))
    with mock.patch.object(type(storage), "open", side_effect=error), pytest.raises(ConnectionError, match=str(error)):
        list(read_column("memory://box/a.parquet", "text"))
    broken = mock.Mock(wraps=io.BytesIO(as_parquet(["a"] * 20)), closed=False)
    broken.read.side_effect = error
    opened = mock.patch.object(remote_files, "_storage", lambda url: (mock.Mock(open=lambda *_, **__: broken), url))
    with opened, pytest.raises(ConnectionError, match=str(error)):
        list(read_column("memory://box/a.parquet", "text"))


def test_a_damaged_file_is_refused(storage: Any) -> None:
    storage.pipe("/box/a.parquet", as_parquet(["a"] * 20)[:-9])
    with pytest.raises(UserError, match="a.parquet cannot be read as Parquet"):
        list(read_column("memory://box/a.parquet", "text"))


def test_preprocessing_writes_the_bytes_of_local_files(storage: Any, tmp_path: Path) -> None:
    documents = make_documents(100)
    local = write_jsonl(tmp_path / "a.jsonl", documents)
    storage.pipe("/box/a.jsonl", local.read_bytes())
    folders: list[Path] = []
    for source in (str(local), "memory://box/a.jsonl"):
        folders.append(tmp_path / f"data{len(folders)}")
        flags = ["--data-dir", folders[-1], "--vocab-size", 350, "--val-share", 0.1]
        result = run_here("preprocess_xcoax.py", "--input", source, *flags)
        assert result.returncode == 0, result.stderr
    ours, theirs = ({name: data for name, data in contents(folder).items() if name != "meta.json"} for folder in folders)
    assert ours == theirs
