"""Chunks of Parquet files: those of reading row after row, planned from footers, whatever the row groups are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import PreprocessConfig
from formats.parquet_files import read_range
from preprocessing import chunks, parquet_chunks
from preprocessing.chunks import Chunk, read_chunks
from preprocessing.parquet_chunks import plan_chunks
from preprocessing.sources import Document, Position, open_documents
from tests.conftest import make_documents, write_jsonl
from tests.preprocessing.in_process import contents, run_here

START = Position(0, 0)


def write_parquet(path: Path, texts: list[str], group: int) -> Path:
    pyarrow.parquet.write_table(pa.table({"number": list(range(len(texts))), "text": texts}), path, row_group_size=max(1, group))
    return path


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of at most seven documents."""
    for module in (chunks, parquet_chunks):
        monkeypatch.setattr(module, "CHUNK_DOCUMENTS", 7)
    monkeypatch.setattr(parquet_chunks, "LARGEST_GROUP", 100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parquet")


def planned(config: PreprocessConfig, number: int = 0, start: Position = START) -> list[Chunk[Document]]:
    found = plan_chunks(open_documents(config), config, number, start)
    assert found is not None
    return list(found)


def texts_of(chunk: Chunk[Document]) -> list[bytes | None]:
    return [document.text for document in chunk.items]


FILES = st.lists(st.tuples(st.integers(0, 25), st.integers(1, 30)), min_size=1, max_size=4)  # rows, and rows in a group


@pytest.mark.usefixtures("small_chunks")
@given(FILES, st.integers(1, 5))
def test_chunks_are_those_of_reading_row_after_row(folder: Path, files: list[tuple[int, int]], num_chunks: int) -> None:
    """And from the end of each one the plan goes on with the next."""
    for path in folder.glob("*.parquet"):
        path.unlink()
    for number, (rows, group) in enumerate(files):
        write_parquet(folder / f"{number}.parquet", [f"file {number} row {row} " * 9 for row in range(rows)], group)
    config = PreprocessConfig(input=(str(folder),), num_chunks=num_chunks, max_document_bytes=100)
    source = open_documents(config)
    expected = list(read_chunks(source.read(START), source.names, 0, START, num_chunks))
    found = planned(config)
    assert [(chunk.number, texts_of(chunk)) for chunk in found] == [(chunk.number, texts_of(chunk)) for chunk in expected]
    for done, chunk in enumerate(found):
        rest = planned(config, done + 1, chunk.end)
        assert [(each.number, texts_of(each)) for each in rest] == [(each.number, texts_of(each)) for each in found[done + 1 :]]


def test_chunks_of_long_documents_end_early(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_chunks, "CHUNK_BYTES", 50_000)
    texts = [f"{number} " * (2000 if number < 50 else 10) for number in range(100)]
    path = write_parquet(tmp_path / "long.parquet", texts, 10)
    found = planned(PreprocessConfig(input=(str(path),)))
    sizes = [sum(len(text or b"") for text in texts_of(chunk)) for chunk in found]
    assert [text for chunk in found for text in texts_of(chunk)] == [text.encode() for text in texts]
    assert len(found) > 4
    assert max(sizes) < 60_000


@pytest.mark.parametrize(
    ("files", "clean"),
    [(("a.parquet",), "wikitext"), (("a.parquet", "b.jsonl"), "no"), (("large.parquet",), "no")],
    ids=["wikitext", "mixed", "large row group"],
)
def test_elsewhere_rows_are_read_one_after_the_other(
    files: tuple[str, ...], clean: Literal["no", "wikitext"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_chunks, "LARGEST_GROUP", 10)
    write_parquet(tmp_path / "a.parquet", ["a"], 1)
    write_parquet(tmp_path / "large.parquet", ["a"] * 11, 11)
    write_jsonl(tmp_path / "b.jsonl", ["b"])
    config = PreprocessConfig(input=tuple(str(tmp_path / file) for file in files), clean=clean)
    assert plan_chunks(open_documents(config), config, 0, START) is None


@given(st.integers(0, 30), st.integers(1, 12), st.data())
def test_any_range_of_rows_is_read(folder: Path, rows: int, group: int, data: st.DataObject) -> None:
    path = write_parquet(folder / "range.parquet", [str(row) for row in range(rows)], group)
    first = data.draw(st.integers(0, rows))
    last = data.draw(st.integers(first, rows))
    assert list(read_range(str(path), "text", first, last)) == [str(row).encode() for row in range(first, last)]


def test_parquet_gives_the_bytes_that_json_lines_give(tmp_path: Path) -> None:
    documents = make_documents(300)
    sources = [write_jsonl(tmp_path / "a.jsonl", documents), write_parquet(tmp_path / "a.parquet", documents, 40)]
    for number, source in enumerate(sources):
        flags = ["--data-dir", tmp_path / str(number), "--vocab-size", 400, "--val-share", 0.1]
        result = run_here("preprocess_xcoax.py", "--input", source, *flags)
        assert result.returncode == 0, result.stderr

    def shards(folder: Path) -> Iterator[tuple[str, bytes]]:
        return ((name, data) for name, data in contents(folder).items() if name != "meta.json")

    assert dict(shards(tmp_path / "0")) == dict(shards(tmp_path / "1"))
