"""Instruction examples: read from shards, packed into sequences, collated into batches."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from config import IGNORE_INDEX
from formats.batches import PADDING, Batch, shuffled_indices
from formats.document_reader import DocumentReader
from formats.packing import pack
from formats.shards import Dataset, Split
from tokens.prompt_format import PromptFormat


class Example(NamedTuple):
    """An instruction pair as ids."""

    ids: NDArray[np.int64]
    prompt_length: int  # ids before the instruction

    @property
    def length(self) -> int:
        """Positions it takes in a sequence; its last id is only ever a target."""
        return len(self.ids) - 1


class Examples:
    """The examples of a split."""

    def __init__(self, dataset: Dataset, split: Split, prompt_format: PromptFormat) -> None:
        self._pairs = DocumentReader(dataset, split, prompt_format.tokenizer.end_of_text)
        self._instruction_id = prompt_format.before_instruction[-1]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Example:
        ids = self._pairs.read(index)
        return Example(ids, int(np.flatnonzero(ids == self._instruction_id)[0]) + 1)

    @cached_property
    def prompt_lengths(self) -> NDArray[np.int64]:
        """Ids of each example before its instruction."""
        begins: NDArray[np.int64] = self._pairs.places_of(self._instruction_id) - self._pairs.starts[:-1] + 1
        return begins

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Positions that each example takes in a sequence."""
        return np.diff(self._pairs.starts) - 1


class PackedExamples:
    """Sequences of whole examples. They are packed once and drawn in a new order every epoch."""

    def __init__(self, examples: Examples, block_size: int, filler: int, loss_on: Literal["instruction", "all"]) -> None:
        self._examples = examples
        self._shape = block_size, filler, loss_on
        self._packed = pack(examples.lengths, block_size)

    def __len__(self) -> int:
        return len(self._packed)

    def draw(self, seed: int, first: int, count: int) -> Batch:
        """`count` sequences of an endless shuffled order, from number `first` on."""
        block_size, filler, loss_on = self._shape
        chosen = [self._packed[index] for index in shuffled_indices(len(self), seed, first, count)]
        return collate([[self._examples[index] for index in indices] for indices in chosen], block_size, filler, loss_on)


def collate(
    sequences: Sequence[Sequence[Example]], block_size: int, filler: int, loss_on: Literal["instruction", "all"], height: int = 0
) -> Batch:
    """A batch with the examples of each sequence one after another, padded to at least `height` sequences without targets."""
    shape = max(len(sequences), height), block_size
    inputs, targets = np.full(shape, filler, np.int64), np.full(shape, IGNORE_INDEX, np.int64)
    segment_ids = np.full(shape, PADDING, np.int64)
    for place, examples in enumerate(sequences):
        start = 0
        for number, example in enumerate(examples):
            end = start + example.length
            skipped = example.prompt_length - 1 if loss_on == "instruction" else 0  # the prompt's last id predicts the instruction's first
            inputs[place, start:end] = example.ids[:-1]
            targets[place, start + skipped : end] = example.ids[1 + skipped :]
            segment_ids[place, start:end] = number
            start = end
    return Batch(inputs, targets, segment_ids)
