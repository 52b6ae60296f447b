"""The prompt format: how a pair of instruction and response becomes token ids, and what is cut when it is too long.

    <|endoftext|><|im_start|><|response|> response <|im_end|><|im_start|><|instruction|> instruction <|im_end|>

Both texts are in the model's word order. Everything up to and including <|instruction|> is the prompt at inference.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from config import Order
from tokens.reversal import reorder
from tokens.tokenizer import END_OF_TEXT, Tokenizer

Ids = Sequence[int] | NDArray[np.integer[Any]]

MIN_RESPONSE_TOKENS = 8  # with less room than this a cut response says nothing about its instruction


class FittedResponse(NamedTuple):
    """A response, or as much of it as fits."""

    ids: Ids
    text: str
    is_cut: bool


class PromptFormat:
    """The prompt format for one tokenizer and word order."""

    def __init__(self, tokenizer: Tokenizer, order: Order) -> None:
        self.tokenizer = tokenizer
        self.order = order
        self.before_response = self._ids(END_OF_TEXT, "<|im_start|>", "<|response|>")
        self.before_instruction = self._ids("<|im_end|>", "<|im_start|>", "<|instruction|>")
        self.after_instruction = self._ids("<|im_end|>")

    @property
    def overhead(self) -> int:
        """Special tokens in an example."""
        return len(self.before_response) + len(self.before_instruction) + len(self.after_instruction)

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a generated instruction."""
        return frozenset([*self.after_instruction, self.tokenizer.end_of_text])

    def prompt(self, response: Ids) -> list[int]:
        """The prompt for the ids of a response."""
        return [*self.before_response, *response, *self.before_instruction]

    def example(self, response: Ids, instruction: Ids) -> NDArray[np.uint16]:
        """A complete training example."""
        parts = (self.before_response, response, self.before_instruction, instruction, self.after_instruction)
        return np.concatenate(parts).astype(np.uint16)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, in the model's word order."""
        return self.tokenizer.encode(reorder(text, self.order))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, in the order of a reader."""
        return reorder(self.tokenizer.decode(ids), self.order)

    def is_too_long(self, instruction: str, block_size: int) -> bool:
        """Whether an instruction has more characters than the ids of a context can stand for. Such a text is not worth encoding."""
        return len(instruction) > block_size * self._longest_piece

    def fit_beside(self, instruction: Ids, response: str, block_size: int, encoded: Ids | None = None) -> FittedResponse | None:
        """The response, cut to fit into the context beside its instruction; None where the instruction leaves too little room.

        `encoded` saves encoding the response again where the caller has its ids.
        """
        room = block_size - self.overhead - len(instruction)
        if encoded is not None and len(encoded) <= room:
            return FittedResponse(encoded, response, False)
        if room < 1:
            return None
        fitted = self.fit_response(response, room)
        return None if fitted.is_cut and room < MIN_RESPONSE_TOKENS else fitted

    def fit_response(self, response: str, room: int) -> FittedResponse:
        """The response in at most `room` ids.

        Its beginning is kept, which is nearest to the instruction: up to the end of a word, or, where that would leave
        half of the room empty, as in scripts without spaces, up to a character.
        """
        # No piece is longer, so nothing beyond can fit: a response of millions of characters costs no more than a long one.
        shortened = response[: room * self._longest_piece + 1]
        ids = self.encode(shortened)
        if len(ids) <= room and len(shortened) == len(response):
            return FittedResponse(ids, response, False)
        ends = [match.start() for match in re.finditer(r"[ \n]+", shortened) if match.start()]
        length = self._longest_fitting(shortened, ends, room)
        ids = self.encode(shortened[:length])
        if len(ids) < room // 2:
            length = self._longest_fitting(shortened, range(1, len(shortened) + 1), room)
            ids = self.encode(shortened[:length])
        return FittedResponse(ids, shortened[:length], True)

    def _longest_fitting(self, text: str, ends: Sequence[int], room: int) -> int:
        """The last of the ends up to which the text fits; 0 if none."""
        low, high = 0, len(ends)
        while low < high:
            middle = (low + high) // 2
            if len(self.encode(text[: ends[middle]])) <= room:
                low = middle + 1
            else:
                high = middle
        return ends[low - 1] if low else 0

    def _ids(self, *tokens: str) -> list[int]:
        return [self.tokenizer.special_id(token) for token in tokens]

    @cached_property
    def _longest_piece(self) -> int:
        """Characters that one id can stand for."""
        return max(len(self.tokenizer.decode([id])) for id in range(self.tokenizer.vocab_size))
