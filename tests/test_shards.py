"""Shards: read back what was written, windows that cover every token once, damage that is found and named."""

import json
import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import IGNORE
from errors import UserError
from shards import Dataset, ShardWriter, Stream, Windows, open_dataset, seal


def write_stream(folder: Path, lengths: list[int]) -> Stream:
    """Shards that hold 0, 1, 2, ... one after the other."""
    start = 0
    paths = []
    for index, length in enumerate(lengths):
        with ShardWriter(folder, f"train_{index:05d}.bin") as writer:
            writer.append(np.arange(start, start + length, dtype=np.uint16), 1, length)
            writer.finish()
        paths.append(folder / f"train_{index:05d}.bin")
        start += length
    return Stream(paths, lengths)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    start=st.integers(0, 50),
    count=st.integers(0, 50),
)
def test_a_stream_reads_over_the_ends_of_its_shards(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], start: int, count: int
) -> None:
    stream = write_stream(tmp_path_factory.mktemp("stream"), lengths)
    assert stream.read(start, count).tolist() == list(range(sum(lengths)))[start : start + count]


@given(
    lengths=st.lists(st.integers(2, 30), min_size=1, max_size=4),
    block_size=st.integers(1, 9),
    rows=st.integers(1, 7),
    seed=st.integers(0, 5),
)
def test_an_epoch_has_every_token_as_a_target_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], block_size: int, rows: int, seed: int
) -> None:
    windows = Windows(write_stream(tmp_path_factory.mktemp("stream"), lengths), block_size, filler=0)
    drawn = [windows.draw(seed, first, min(rows, 2 * len(windows) - first)) for first in range(0, 2 * len(windows), rows)]
    inputs, targets = (np.concatenate([getattr(part, name) for part in drawn]) for name in ("inputs", "targets"))
    for epoch in (slice(len(windows)), slice(len(windows), None)):
        seen = targets[epoch][targets[epoch] != IGNORE]
        assert sorted(seen.tolist()) == list(range(1, sum(lengths)))
    counted = targets != IGNORE
    assert (targets[counted] == inputs[counted] + 1).all()  # the target is the id that comes next


def test_batches_depend_on_seed_and_row_alone(tmp_path: Path) -> None:
    windows = Windows(write_stream(tmp_path, [500]), 7, filler=0)
    whole = windows.draw(3, 0, 20).inputs
    assert np.array_equal(np.concatenate([windows.draw(3, 0, 7).inputs, windows.draw(3, 7, 13).inputs]), whole)
    assert not np.array_equal(windows.draw(4, 0, 20).inputs, whole)


def test_validation_windows_are_fixed_and_spread(tmp_path: Path) -> None:
    windows = Windows(write_stream(tmp_path, [701]), 7, filler=0)
    assert windows.spread(4).tolist() == [0, 25, 50, 75]
    assert windows.spread(1000).tolist() == list(range(100))


def test_reading_does_not_keep_pages(tmp_path: Path) -> None:
    """A run that reads all of a large shard must not grow by the shard."""
    length = 48 << 20
    path = tmp_path / "train_00000.bin"
    path.write_bytes(bytes(2 * length))
    stream = Stream([path], [length])
    before = psutil.Process().memory_info().rss
    for start in range(0, length, 1 << 20):
        stream.read(start, 1024)
    pieces = sum(int(stream.read(start, 1 << 16).sum()) for start in range(0, length, 1 << 16))
    assert pieces == 0
    assert psutil.Process().memory_info().rss - before < 24 << 20


@pytest.fixture
def dataset(dataset_folder: Path, tmp_path: Path) -> Dataset:
    return Dataset(Path(shutil.copytree(dataset_folder, tmp_path / "copy")), {})


def test_a_sealed_folder_opens(dataset: Dataset) -> None:
    opened = open_dataset(dataset.folder, check_hashes=True)
    assert opened.order == "backward"
    assert opened.vocab_size == 400
    assert len(opened.stream("train")) == sum(shard.ids for shard in opened.shards("train"))


def test_a_short_shard_is_named_with_the_way_out(dataset: Dataset) -> None:
    shard = dataset.folder / "train_00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(
        UserError,
        match=r"train_00000.bin has [\d,]+ bytes instead of [\d,]+\. Delete the folder and run: python preprocess_xcoax.py --data-dir",
    ):
        open_dataset(dataset.folder)


def test_a_missing_shard_is_named(dataset: Dataset) -> None:
    (dataset.folder / "val_00000.bin").unlink()
    with pytest.raises(UserError, match="val_00000.bin is missing"):
        open_dataset(dataset.folder)


@pytest.mark.parametrize("name", ["train_00000.bin", "tokenizer.model"])
def test_a_flipped_bit_is_found_on_request(dataset: Dataset, name: str) -> None:
    file = dataset.folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    open_dataset(dataset.folder)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        open_dataset(dataset.folder, check_hashes=True)


def test_an_unfinished_folder_gives_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished dataset in data/xcoax. Run: python preprocess_xcoax.py$"):
        open_dataset(Path("data/xcoax"))
    with pytest.raises(UserError, match="Run: python preprocess_xcoax.py tinystories$"):
        open_dataset(Path("data/tinystories"))
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(UserError, match="it was begun"):
        open_dataset(tmp_path)


def test_another_format_is_refused(dataset: Dataset) -> None:
    meta = json.loads((dataset.folder / "meta.json").read_text())
    (dataset.folder / "meta.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(UserError, match="has format 99"):
        open_dataset(dataset.folder)
    (dataset.folder / "meta.json").write_text("{")
    with pytest.raises(UserError, match="meta.json is damaged"):
        open_dataset(dataset.folder)


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, "train_00000.bin") as writer:
        writer.append(np.arange(3, dtype=np.uint16), 1, 3)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_shard_of_no_documents_leaves_no_file(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "val_00000.bin") as writer:
        assert writer.finish() == []
    assert list(tmp_path.iterdir()) == []
    seal(tmp_path, {}, {"train": [], "val": []})
    assert len(open_dataset(tmp_path).stream("val")) == 0
