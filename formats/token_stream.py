"""The shards of a split as one sequence of ids."""

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config import MAX_VOCAB_SIZE
from system.errors import UserError

ID_DTYPE = np.dtype("<u2")


class TokenStream:
    """One sequence of ids across the shards of a split.

    Shards are read, not mapped: a file that is cut short under a mapping kills the process, mapped pages count as its memory, and Python
    keeps a descriptor open for each mapping, so that 1,000 shards reach the usual limit of 1,024.
    """

    def __init__(self, paths: Sequence[Path], lengths: Sequence[int], vocab_size: int = MAX_VOCAB_SIZE) -> None:
        self._paths = list(paths)
        self._vocab_size = vocab_size
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._bounds: list[int] = self._starts.tolist()  # the same, faster to read one by one

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, count: int) -> NDArray[np.int64]:
        """`count` ids from `start` on, or fewer at the end."""
        count = max(0, min(count, len(self) - start))
        return self.read_windows(np.array([start]), count).reshape(-1).astype(np.int64)

    def read_windows(self, starts: NDArray[np.int64], count: int) -> NDArray[np.uint16]:
        """`count` ids from each start on, (windows, count), with zeros beyond the end of the stream."""
        windows = np.zeros((len(starts), count), ID_DTYPE)
        buffer = windows.reshape(-1).data
        for shard, pieces in groupby(self._pieces(starts, count), key=itemgetter(0)):
            file = os.open(self._paths[shard], os.O_RDONLY)
            try:
                for _, offset, place, length in pieces:
                    if not _read_into(file, buffer[place : place + length].cast("B"), offset * ID_DTYPE.itemsize):
                        expected = int(self._starts[shard + 1] - self._starts[shard]) * ID_DTYPE.itemsize
                        raise self._damaged(shard, f"it has {os.fstat(file).st_size:,} bytes instead of {expected:,}")
            except OSError as error:
                error.filename = str(self._paths[shard])  # reading, unlike opening, names no file
                raise
            finally:
                os.close(file)
        if windows.size and (largest := int(windows.max())) >= self._vocab_size:
            window, place = divmod(int(windows.argmax()), count)
            shard = int(self._shards_of(starts[window] + place))
            raise self._damaged(shard, f"it has the id {largest}, and the vocabulary ends at {self._vocab_size - 1}")
        return windows

    def _pieces(self, starts: NDArray[np.int64], count: int) -> Iterator[tuple[int, int, int, int]]:
        """The windows, shard by shard: the shard, the first id there, its place in the buffer, and how many ids."""
        order = np.argsort(starts)
        for window, start, shard in zip(order.tolist(), starts[order].tolist(), self._shards_of(starts[order]).tolist(), strict=True):
            place, end = window * count, min(start + count, self._bounds[-1])
            while start < end:
                length = min(end, self._bounds[shard + 1]) - start
                yield shard, start - self._bounds[shard], place, length
                start, place, shard = start + length, place + length, shard + 1

    def _shards_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._starts, positions, side="right") - 1

    def _damaged(self, shard: int, what: str) -> UserError:
        return UserError(f"{self._paths[shard]} is damaged: {what}. Delete the folder and preprocess again")


def _read_into(file: int, buffer: memoryview, offset: int) -> bool:
    """Fill the buffer from this place in the file; whether the file is long enough. One call may read less, as from a network disk."""
    while buffer:
        count = os.preadv(file, [buffer], offset)
        if not count:
            return False
        buffer, offset = buffer[count:], offset + count
    return True
