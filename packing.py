"""Rows of whole examples: what tuning learns from."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from config import IGNORE
from layout import Layout
from shards import PADDING, Dataset, Documents, Rows, Split, drawn


class Example(NamedTuple):
    """A pair in ids."""

    ids: NDArray[np.int64]
    prompt: int  # ids before the instruction

    @property
    def length(self) -> int:
        """Places it takes in a row: its last id is only ever a target."""
        return len(self.ids) - 1


class Examples:
    """The pairs of a split."""

    def __init__(self, dataset: Dataset, split: Split, layout: Layout) -> None:
        self._pairs = Documents(dataset, split, layout.tokenizer.end_of_text)
        [self._mark] = layout.between[-1:]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Example:
        ids = self._pairs.read(index)
        return Example(ids, int(np.flatnonzero(ids == self._mark)[0]) + 1)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Places that each example takes in a row."""
        return np.diff(self._pairs.starts) - 1


class PackedRows:
    """Examples packed into rows once; the rows come in a new order every epoch."""

    def __init__(self, examples: Examples, block_size: int, filler: int, loss_on: Literal["instruction", "all"]) -> None:
        self._examples = examples
        self._shape = block_size, filler, loss_on
        self._rows = pack(examples.lengths, block_size)

    def __len__(self) -> int:
        return len(self._rows)

    def draw(self, seed: int, first_row: int, rows: int) -> Rows:
        """Rows number `first_row`, `first_row + 1`, ... of an endless order of the rows."""
        block_size, filler, loss_on = self._shape
        chosen = [self._rows[index] for index in drawn(len(self), seed, first_row, rows)]
        return lay([[self._examples[index] for index in row] for row in chosen], block_size, filler, loss_on)


def pack(lengths: Sequence[int] | NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Rows of things of these lengths: the longest first, each into the row it leaves the least room in (best fit decreasing)."""
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by the places that are left in them
    open_rooms = 0  # bit r is set where a row has r places left
    for index in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = int(lengths[index])
        assert 0 < length <= capacity, f"an example of {length} ids does not fit into a row of {capacity}"
        fitting = open_rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                open_rooms ^= 1 << room
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(index)
        room -= length
        if room:
            with_room[room].append(row)
            open_rooms |= 1 << room
    return rows


def lay(rows: Sequence[Sequence[Example]], block_size: int, filler: int, loss_on: Literal["instruction", "all"], height: int = 0) -> Rows:
    """The examples of each row one after the other, and what is to be learnt; filled up to `height` rows that count for nothing."""
    shape = max(len(rows), height), block_size
    inputs, targets = np.full(shape, filler, np.int64), np.full(shape, IGNORE, np.int64)
    examples = np.full(shape, PADDING, np.int64)
    for row, content in enumerate(rows):
        place = 0
        for number, example in enumerate(content):
            end = place + example.length
            learnt = example.prompt - 1 if loss_on == "instruction" else 0  # the mark before the instruction foretells its first id
            inputs[row, place:end] = example.ids[:-1]
            targets[row, place + learnt : end] = example.ids[1 + learnt :]
            examples[row, place:end] = number
            place = end
    return Rows(inputs, targets, examples)


def strangers(responses: Sequence[Hashable], seed: int) -> list[int]:
    """For each response the number of another that is not the same, unless more than half are the same."""
    # In a circle by response, those that have the same one together, and on by as many as the largest such group has.
    ranks = dict(zip(dict.fromkeys(responses), np.random.default_rng(seed).permutation(len(set(responses))).tolist(), strict=True))
    order = sorted(range(len(responses)), key=lambda index: ranks[responses[index]])
    shift = max(Counter(responses).values())
    of_another = dict(zip(order, [*order[shift:], *order[:shift]], strict=True))
    return [of_another[index] for index in range(len(responses))]


def mismatched(examples: Sequence[Example], others: Sequence[int], begin: int, block_size: int) -> list[Example]:
    """Each instruction after the response of another example; `begin` ids stand before a response.

    A response too long for its new instruction loses what lies farthest from it.
    """
    found = []
    for example, other in zip(examples, others, strict=True):
        prompt = examples[other].ids[: examples[other].prompt]
        instruction = example.ids[example.prompt :]
        excess = max(0, len(prompt) + len(instruction) - 1 - block_size)
        prompt = np.concatenate([prompt[:begin], prompt[begin + excess :]])
        found.append(Example(np.concatenate([prompt, instruction]), len(prompt)))
    return found
