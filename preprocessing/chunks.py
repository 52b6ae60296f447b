"""Owns chunks: the rows of a source in groups, the unit of work, of shuffling and of resuming."""

from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from config import CHUNK_BYTES, CHUNK_DOCUMENTS
from preprocessing.sources import Position


class Sized(Protocol):
    """A document or a pair."""

    @property
    def size(self) -> int:
        """In bytes of UTF-8."""


Item = TypeVar("Item", bound=Sized)


class Chunk(NamedTuple, Generic[Item]):
    """The items that one worker turns into at most one training shard and one validation shard."""

    number: int
    items: Iterable[Item]  # in memory, or read when a worker goes through them
    start: str  # file and row of the first item, for messages
    end: Position


def read_chunks(
    rows: Iterator[tuple[list[Item], Position]], names: tuple[str, ...], number: int, start: Position, num_chunks: int
) -> Iterator[Chunk[Item]]:
    """Group the rows, which begin at `start`, into chunks number `number` to `num_chunks` - 1, or fewer if the rows end."""
    items: list[Item] = []
    count = size = 0
    end = start
    while number < num_chunks:
        row = next(rows, None)
        if row is not None:
            new_items, end = row
            for item in new_items:
                items.append(item)
                size += item.size
            count += 1
        if count == CHUNK_DOCUMENTS or size >= CHUNK_BYTES or (row is None and count):
            yield Chunk(number, items, f"{names[start.file]}, row {start.row + 1}", end)
            items, count, size, start = [], 0, 0, end
            number += 1
        if row is None:
            return
