"""Documents found by their boundaries: they come back whole, and shards that do not fit meta.json are refused."""

import dataclasses
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.document_reader import DocumentReader, scan_documents
from formats.shards import Dataset, ShardWriter
from system.errors import UserError

BOUNDARY = 2


def write_dataset(folder: Path, documents: list[list[int]], counted: int | None = None, vocab_size: int = 100) -> Dataset:
    """A dataset with one shard, whose meta.json may have the wrong number of documents or of token ids."""
    with ShardWriter(folder, "train_00000.bin") as writer:
        for document in documents:
            writer.append(np.array(document, np.uint16), 1, 1)
        [shard] = writer.finish()
    shard = dataclasses.replace(shard, documents=len(documents) if counted is None else counted)
    return Dataset(folder, {"vocab_size": vocab_size, "shards": {"train": [dataclasses.asdict(shard)], "val": []}})


@given(
    texts=st.lists(st.lists(st.integers(3, 99), max_size=8), min_size=1, max_size=20),
    scanned=st.integers(1, 9),
)
def test_documents_come_back_whole(tmp_path_factory: pytest.TempPathFactory, texts: list[list[int]], scanned: int) -> None:
    written = [[BOUNDARY, *text] for text in texts]
    with mock.patch("formats.document_reader.SCANNED_IDS", scanned):
        documents = DocumentReader(write_dataset(tmp_path_factory.mktemp("data"), written), "train", BOUNDARY)
    assert [documents.read(index).tolist() for index in range(len(documents))] == written


@given(
    texts=st.lists(st.lists(st.integers(3, 99), max_size=8), min_size=1, max_size=20),
    lengths=st.sets(st.integers(0, 8)),
    scanned=st.integers(1, 9),
)
def test_a_scan_finds_the_documents_of_some_lengths(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[int]], lengths: set[int], scanned: int
) -> None:
    dataset = write_dataset(tmp_path_factory.mktemp("data"), [[BOUNDARY, *text] for text in texts])
    with mock.patch("formats.document_reader.SCANNED_IDS", scanned):
        found = [ids.tolist() for ids in scan_documents(dataset.stream("train"), BOUNDARY, lengths)]
    assert found == [text for text in texts if len(text) in lengths]


@pytest.mark.parametrize(
    ("written", "counted", "vocab_size", "problem"),
    [
        ([[BOUNDARY, 7], [BOUNDARY, 8]], 3, 100, "they hold 2 documents, meta.json has 3"),
        ([[BOUNDARY, 7], [BOUNDARY, 8]], 2, 8, "it has the id 8, and the vocabulary ends at 7"),
        ([[7, BOUNDARY], [BOUNDARY, 8]], 2, 100, "they do not begin with a boundary"),
    ],
)
def test_shards_that_do_not_fit_meta_json_are_refused(
    tmp_path: Path, written: list[list[int]], counted: int, vocab_size: int, problem: str
) -> None:
    with pytest.raises(UserError, match=rf"damaged: {problem}.*Delete the folder"):
        DocumentReader(write_dataset(tmp_path, written, counted, vocab_size), "train", BOUNDARY)
