"""Batches of sequences for training and validation, and the order in which they are drawn."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from config import IGNORE_INDEX
from formats.token_stream import TokenStream

PADDING = -1  # the segment id of padding


@dataclass(frozen=True)
class Batch:
    """Sequences to train or validate on: the ids of `inputs`, and for each the id that follows it."""

    inputs: NDArray[np.int64]  # (B, T)
    targets: NDArray[np.int64]  # (B, T), IGNORE_INDEX where the loss does not count
    segment_ids: NDArray[np.int64] | None = None  # (B, T) which example of its sequence each id belongs to, or PADDING

    def __getitem__(self, part: slice) -> "Batch":
        return Batch(self.inputs[part], self.targets[part], None if self.segment_ids is None else self.segment_ids[part])

    @property
    def tokens(self) -> int:
        """Tokens that the model reads, without padding."""
        return int((self.targets != IGNORE_INDEX).sum() if self.segment_ids is None else (self.segment_ids != PADDING).sum())


@dataclass(frozen=True)
class BatchSeries:
    """A known number of batches, each read when it is needed."""

    count: int
    read: Callable[[int], Batch]  # the batch with this number

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        return map(self.read, range(self.count))


class Windows:
    """A token stream cut into windows of `block_size` targets: every id but the first is a target of exactly one window."""

    def __init__(self, stream: TokenStream, block_size: int, filler: int) -> None:
        self._stream = stream
        self._block_size = block_size
        self._filler = filler  # the id that pads the last, shorter window; its targets are ignored

    def __len__(self) -> int:
        return math.ceil((len(self._stream) - 1) / self._block_size)

    def read(self, indices: Sequence[int] | NDArray[np.int64], height: int = 0) -> Batch:
        """The windows at these indices, padded to at least `height` sequences whose targets are ignored."""
        count, size = len(indices), self._block_size
        starts = np.asarray(indices, np.int64) * size
        ids = self._stream.read_windows(starts, size + 1)
        # One array for both: the next batch then takes its memory, where for two the system clears fresh pages each time.
        inputs, targets = np.empty((2, max(count, height), size), np.int64)
        inputs[:count], targets[:count] = ids[:, :-1], ids[:, 1:]
        lengths = len(self._stream) - 1 - starts  # targets from each start to the end of the stream
        for place in np.flatnonzero(lengths < size):
            inputs[place, lengths[place] :], targets[place, lengths[place] :] = self._filler, IGNORE_INDEX
        inputs[count:], targets[count:] = self._filler, IGNORE_INDEX
        return Batch(inputs, targets)

    def draw(self, seed: int, first: int, count: int) -> Batch:
        """`count` windows of an endless shuffled order, from number `first` on."""
        return self.read(shuffled_indices(len(self), seed, first, count))


def shuffled_indices(size: int, seed: int, first: int, count: int) -> list[int]:
    """Positions `first` to `first + count` of an endless order in which every epoch is a new permutation of `size` items.

    A function of its arguments alone, so resuming needs no loader state.
    """
    return [int(_permutation(size, seed, number // size)[number % size]) for number in range(first, first + count)]


def evenly_spaced(size: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of `size` indices, evenly spaced and always the same."""
    chosen = min(limit, size)
    return np.arange(chosen, dtype=np.int64) * size // max(chosen, 1)


@lru_cache(maxsize=2)  # a step can contain the end of one epoch and the beginning of the next
def _permutation(size: int, seed: int, epoch: int) -> NDArray[np.uint32]:
    return np.random.default_rng([seed, epoch]).permutation(np.arange(size, dtype=np.uint32))
