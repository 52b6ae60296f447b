"""The token stream: it reads across shards, uses up neither memory nor descriptors, and survives what happens to a shard meanwhile."""

import os
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.token_stream import TokenStream
from system.errors import UserError
from tests.formats.conftest import write_stream


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    start=st.integers(0, 50),
    count=st.integers(0, 50),
)
def test_a_stream_reads_across_its_shards(tmp_path_factory: pytest.TempPathFactory, lengths: list[int], start: int, count: int) -> None:
    stream = write_stream(tmp_path_factory.mktemp("stream"), lengths)
    assert len(stream) == sum(lengths)
    assert stream.read(start, count).tolist() == list(range(sum(lengths)))[start : start + count]


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    starts=st.lists(st.integers(0, 50), max_size=6),
    count=st.integers(0, 20),
)
def test_windows_are_read_together_as_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], starts: list[int], count: int
) -> None:
    stream = write_stream(tmp_path_factory.mktemp("stream"), lengths)
    windows = stream.read_windows(np.array(starts, np.int64), count)
    assert windows.shape == (len(starts), count)
    for window, start in zip(windows.tolist(), starts, strict=True):
        ids = stream.read(start, count).tolist()
        assert window == ids + [0] * (count - len(ids))


def test_an_id_beyond_the_vocabulary_names_its_shard(tmp_path: Path) -> None:
    write_stream(tmp_path, [10, 10, 10])
    stream = TokenStream([tmp_path / f"train_{index:05d}.bin" for index in range(3)], [10, 10, 10], vocab_size=20)
    assert stream.read_windows(np.array([16, 0, 9]), 4).max() == 19
    with pytest.raises(UserError, match=r"train_00002.bin is damaged: it has the id 20, and the vocabulary ends at 19"):
        stream.read_windows(np.array([3, 17, 9]), 4)


def test_a_shard_that_is_cut_short_or_deleted_while_in_use_is_named(tmp_path: Path) -> None:
    """Under a mapping the first would kill the process."""
    stream = write_stream(tmp_path, [10, 4000])
    path = tmp_path / "train_00001.bin"
    assert len(stream.read(0, 4010)) == 4010
    with path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(UserError, match=r"train_00001.bin is damaged: it has 100 bytes instead of 8,000. Delete the folder"):
        stream.read(3000, 20)
    path.unlink()
    with pytest.raises(FileNotFoundError) as raised:
        stream.read(3000, 20)
    assert raised.value.filename == str(path)


def test_a_shard_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train_00000.bin"
    path.mkdir()  # opens, but does not read
    with pytest.raises(IsADirectoryError) as raised:
        TokenStream([path], [10]).read(0, 5)
    assert raised.value.filename == str(path)


def test_reads_that_return_less_than_asked_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network disk, or beyond 2 GB."""
    np.arange(1000, dtype=np.uint16).tofile(tmp_path / "a.bin")
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: read(file, [buffers[0][:7]], offset))
    assert TokenStream([tmp_path / "a.bin"], [1000]).read(10, 900).tolist() == list(range(10, 910))


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """The usual limit is 1,024 descriptors, and a data folder can have more shards."""
    stream = write_stream(tmp_path, [10] * 50)
    before = psutil.Process().num_fds()
    assert stream.read_windows(np.arange(0, 480, 7), 11).any()
    assert psutil.Process().num_fds() == before


def test_reading_a_large_shard_does_not_use_up_memory(tmp_path: Path) -> None:
    """A process that reads a whole shard must not grow by the size of the shard."""
    length = 48 << 20
    path = tmp_path / "train_00000.bin"
    path.write_bytes(bytes(2 * length))
    stream = TokenStream([path], [length])
    before = psutil.Process().memory_info().rss
    for start in range(0, length, 1 << 20):
        stream.read(start, 1024)
    assert not any(stream.read(start, 1 << 16).any() for start in range(0, length, 1 << 16))
    assert psutil.Process().memory_info().rss - before < 24 << 20
