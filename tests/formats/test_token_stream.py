"""The token stream: it reads across shards, and reading does not use up memory."""

from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.token_stream import TokenStream
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
