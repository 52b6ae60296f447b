"""Batches of sequences for training and validation, and the order in which they are drawn."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from config import IGNORE_INDEX
from formats.token_stream import TokenStream

PADDING = -1  # the segment id of padding
SHUFFLE = {"the order of sequences": "swap-or-not"}  # recorded in checkpoints: a resumed run keeps its order
SHUFFLE_ROUNDS = 24  # two neighbours stay together with a chance of 2**-24
_STRIDE = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio, the increment of SplitMix64


@dataclass(frozen=True)
class Batch:
    """Sequences to train or validate on: the ids of `inputs`, and for each the id that follows it."""

    inputs: NDArray[np.int64]  # (B, T)
    targets: NDArray[np.int64]  # (B, T), IGNORE_INDEX where the loss does not count
    segment_ids: NDArray[np.int64] | None = None  # (B, T) which example of its sequence each id belongs to, or PADDING
    questions: "Batch | None" = None  # as many rows again, in tuning with --contrast

    def __getitem__(self, part: slice) -> "Batch":
        segment_ids = None if self.segment_ids is None else self.segment_ids[part]
        return Batch(self.inputs[part], self.targets[part], segment_ids, self.questions and self.questions[part])

    @property
    def tokens(self) -> int:
        """Tokens that the model reads, without padding."""
        own = int((self.targets != IGNORE_INDEX).sum() if self.segment_ids is None else (self.segment_ids != PADDING).sum())
        return own + (self.questions.tokens if self.questions else 0)


@dataclass(frozen=True)
class BatchSeries:
    """A known number of batches, each read when it is needed."""

    count: int
    read: Callable[[int], Batch]  # the batch with this number

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        return map(self.read, range(self.count))

    def part(self, number: int, parts: int) -> "BatchSeries":
        """One of several parts of the series, all as long: where there are too few batches, the last is one without targets."""

        def read(index: int) -> Batch:
            place = number + index * parts
            batch = self.read(min(place, self.count - 1))
            return batch if place < self.count else Batch(batch.inputs, np.full_like(batch.targets, IGNORE_INDEX), batch.segment_ids)

        return BatchSeries(math.ceil(self.count / parts), read)


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


def shuffled_indices(size: int, seed: int, first: int, count: int) -> NDArray[np.int64]:
    """Positions `first` to `first + count` of an endless order in which every epoch is a new permutation of `size` items.

    A function of its arguments alone, so resuming needs no loader state, and computed for these positions alone. It is a swap-or-not
    shuffle (Hoang, Morris and Rogaway, 2012): each round pairs the items around a random pivot, and a random bit decides for each pair
    whether it changes places.
    """
    length = np.uint64(size)
    epochs, items = np.divmod(np.arange(first, first + count, dtype=np.uint64), length)
    known = range(first // size, (first + count - 1) // size + 1)  # the epochs
    counters = np.arange(known.start * SHUFFLE_ROUNDS, known.stop * SHUFFLE_ROUNDS, dtype=np.uint64).reshape(-1, SHUFFLE_ROUNDS)
    keys = _scramble(_scramble(np.array([seed], np.uint64) + _STRIDE) + counters * _STRIDE)  # (epochs, rounds)
    rows = epochs - np.uint64(known.start)
    for key, pivot in zip(keys.T, (keys % length).T, strict=True):
        partners = (pivot[rows] + length - items) % length
        bits = _scramble(np.maximum(items, partners) ^ key[rows]) >> np.uint64(63)
        items = np.where(bits, partners, items)
    return items.astype(np.int64)


def _scramble(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of each value: the output function of SplitMix64 (Steele, Lea and Flood, 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def evenly_spaced(size: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of `size` indices, evenly spaced and always the same."""
    chosen = min(limit, size)
    return np.arange(chosen, dtype=np.int64) * size // max(chosen, 1)
