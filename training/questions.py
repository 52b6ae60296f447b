"""Questions as rows of a batch: one response, and several instructions of which one belongs to it.

A row holds the response, the instructions one after another, the prompt without a response, and the same instructions again. Each
instruction reads the prompt before it and no other instruction, so all of them share one pass over the response.
"""

import operator
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from config import IGNORE_INDEX
from formats.batches import PADDING, Batch, shuffled_indices
from model import segment_positions_and_mask
from tokens.prompt_format import PromptFormat
from training.examples import Example, Examples

# A segment id is that of the prompt, 0 with a response and BRANCHES without, plus the number of the instruction, from 1 on.
BRANCHES = 128
NOWHERE = -2  # the segment that a prompt follows
LONGEST = 8  # instructions have at most this part of the context, so that a row holds several
DRAWS = 2 * BRANCHES  # instructions drawn for a question, those included that it has or that belong to its response

Ids = NDArray[np.int64]


class Questions:
    """An endless series of questions about the examples, each a function of the seed and its number."""

    def __init__(self, examples: Examples, prompt_format: PromptFormat, block_size: int) -> None:
        self._examples = examples
        self._block_size = block_size
        self._filler = prompt_format.tokenizer.end_of_text
        self._no_response = np.array(prompt_format.prompt([]), np.int64)
        self._before_response = len(prompt_format.before_response)
        self._usable = np.flatnonzero(examples.lengths + 1 - examples.prompt_lengths <= self.longest)

    def __len__(self) -> int:
        """How many examples are asked about."""
        return len(self._usable)

    @property
    def longest(self) -> int:
        """Ids of an instruction at most."""
        return self._block_size // LONGEST

    @property
    def are_possible(self) -> bool:
        """Whether two examples differ in response and instruction."""
        examples = (self._examples[index] for index in self._usable.tolist())
        first = next(examples, None)
        return first is not None and any(all(map(operator.ne, _texts(each), _texts(first))) for each in examples)

    def draw(self, seed: int, first: int, count: int) -> Batch:
        """`count` questions, from number `first` on. Every pair is asked about before one is asked about again."""
        shape = count, self._block_size
        inputs, targets = np.full(shape, self._filler, np.int64), np.full(shape, IGNORE_INDEX, np.int64)
        segment_ids = np.full(shape, PADDING, np.int64)
        for place, asked in enumerate(shuffled_indices(len(self._usable), seed, first, count).tolist()):
            source = np.random.default_rng((seed, first + place))
            start = 0
            for ids, following, segment in self._parts(self._usable[asked], source):
                end = start + len(ids)
                inputs[place, start:end], targets[place, start:end], segment_ids[place, start:end] = ids, following, segment
                start = end
        return Batch(inputs, targets, segment_ids)

    def _parts(self, asked: int, source: np.random.Generator) -> Iterator[tuple[Ids, Ids | int, int]]:
        """The pieces of a row, each with its targets and its segment id; the true instruction is number 1."""
        example = self._examples[asked]
        prompt = example.ids[: example.prompt_length]
        # A response that is too long loses the end farthest from the instruction, as when it is shuffled.
        excess = max(0, len(prompt) + len(self._no_response) - self._block_size // 2)
        prompt = np.concatenate([prompt[: self._before_response], prompt[self._before_response + excess :]])
        # Each instruction repeats the last id of the prompt, which predicts its first.
        room = (self._block_size - len(prompt) - len(self._no_response) + 2) // 2
        instructions = self._instructions(example, room, source)
        for number, start in enumerate((prompt, self._no_response)):
            yield start[:-1], IGNORE_INDEX, number * BRANCHES
            for branch, instruction in enumerate(instructions, 1):
                yield np.concatenate([start[-1:], instruction[:-1]]), instruction, number * BRANCHES + branch

    def _instructions(self, asked: Example, room: int, source: np.random.Generator) -> list[Ids]:
        """The true instruction, then others that belong to other responses, until one has no room."""
        response, true = _texts(asked)
        found, known = [asked.ids[asked.prompt_length :]], {true}
        room -= len(found[0])
        for index in self._usable[source.integers(len(self._usable), size=DRAWS)].tolist():
            example = self._examples[index]
            theirs, instruction = _texts(example)
            if theirs == response or instruction in known:
                continue
            ids = example.ids[example.prompt_length :]
            if len(ids) > room or len(found) == BRANCHES - 1:
                break
            found.append(ids)
            known.add(instruction)
            room -= len(ids)
        return found


def _texts(example: Example) -> tuple[bytes, bytes]:
    """Response and instruction, to compare."""
    return example.ids[: example.prompt_length].tobytes(), example.ids[example.prompt_length :].tobytes()


def positions_and_mask(segment_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Position of each token of questions (B, T), and the mask (B, 1, T, T): a token attends to its prompt and its own instruction."""
    offsets, own = segment_positions_and_mask(segment_ids)
    assert isinstance(own, Tensor)
    prompts = segment_ids - segment_ids % BRANCHES  # (B, T) the segment id of its prompt
    lengths = torch.stack([(segment_ids == number * BRANCHES).sum(1) for number in range(2)], 1)  # (B, 2)
    before = torch.where(segment_ids == prompts, 0, lengths.gather(1, (prompts // BRANCHES).clamp(min=0)))  # (B, T)
    earlier = torch.where(segment_ids == prompts, NOWHERE, prompts)
    return offsets + before, own | (earlier[:, None, :, None] == segment_ids[:, None, None, :])
